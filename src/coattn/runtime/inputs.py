"""The inputs of an exported graph: questions and images as padded batches.

Letters: B batch, R regions, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg


# The inputs of a graph before `coattn.export.image_side` has split it.
INPUTS = ("question", "question_mask", "regions", "region_mask", "boxes", "image_sizes")


def check_inputs(path: Path, graph: InferenceSession, known: Collection[str], *sources: InferenceSession) -> None:
    """Refuse a graph of another model, which reads what the other graphs of its folder do not compute.

    Args:
        path: its file, for the message.
        graph: the graph.
        known: the names of inputs that no graph computes.
        sources: the graphs that run before it.

    Raises:
        ValueError: an input is unknown, or has another type or shape than the output of that name.
    """
    given = {value.name: value for source in sources for value in source.get_outputs()}
    for value in graph.get_inputs():
        source = given.get(value.name)
        fits = value.name in known if source is None else _equal_shapes(source, value)
        if not fits:
            raise ValueError(
                f"{path}: reads {value.name!r} of shape {value.shape}, which no other graph of this folder computes; "
                "it is of another model: export again"
            )


def _equal_shapes(one: NodeArg, other: NodeArg) -> bool:
    """Whether two values have the same type and, apart from sizes that vary, the same shape."""
    fixed = zip(one.shape, other.shape, strict=False)
    return (one.type, len(one.shape)) == (other.type, len(other.shape)) and all(
        size == wanted for size, wanted in fixed if isinstance(size, int) and isinstance(wanted, int)
    )


def image_inputs(
    features: np.ndarray, boxes: np.ndarray, size: Sequence[float], image_side: InferenceSession | None
) -> dict[str, np.ndarray]:
    """The inputs that belong to one image, by name: a row for each region, or one vector.

    Args:
        features: (R, D).
        boxes: (R, 4).
        size: width and height of the image in pixels.
        image_side: the graph of what the model computes from the image alone, if the export has it.
    """
    values = {"regions": features, "boxes": boxes, "image_sizes": np.array(size, np.float32)}
    if image_side is not None:
        batch = {name: padded([value]) for name, value in values.items()}
        batch["region_mask"] = mask([len(features)])
        names = [output.name for output in image_side.get_outputs()]
        found = image_side.run(names, {value.name: batch[value.name] for value in image_side.get_inputs()})
        values |= {name: value[0] for name, value in zip(names, found, strict=True)}
    return values


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (n, ...) of various n -> (B, N, ...) with zeros at padding, N at least 1. A single array is not copied."""
    if len(rows) == 1 and len(rows[0]):
        return rows[0][None]
    values = np.zeros((len(rows), max(1, *map(len, rows)), *rows[0].shape[1:]), rows[0].dtype)
    for number, row in enumerate(rows):
        values[number, : len(row)] = row
    return values


def mask(lengths: Sequence[int]) -> np.ndarray:
    """The mask (B, N) of padded rows with these lengths, True = real."""
    return np.arange(max(1, *lengths)) < np.array(lengths)[:, None]
