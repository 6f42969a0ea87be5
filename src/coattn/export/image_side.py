"""Split an exported graph: all that depends on the image alone is then computed once for all questions about it.

Letters: B batch, R regions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coattn._internal.files import require

_QUESTION, _IMAGE = {"question", "question_mask"}, {"regions", "boxes", "image_sizes"}


def split_image_side(path: Path, image_path: Path) -> None:
    """Move all that a graph computes from the image alone into a second graph, whose outputs the first then reads.

    The outputs are (B, R, ...) or (B, ...), so that those of several images can be padded to one batch. What depends on
    the mask of the regions alone is computed by both graphs.

    Args:
        path: the graph, which is replaced.
        image_path: the second graph; not written if nothing depends on the image alone.
    """
    require("onnx", "export")
    import onnx.utils

    model = onnx.load(path)
    nodes, outputs = list(model.graph.node), [value.name for value in model.graph.output]
    of_question, of_image, moved = set(_QUESTION), set(_IMAGE), list[Any]()
    for node in nodes:  # in the order of computing
        if of_question & set(node.input):
            of_question |= set(node.output)
        elif of_image & set(node.input):
            of_image |= set(node.output)
            moved.append(node)
    fits = {value.name for value in model.graph.value_info if _is_of_images(value)}
    while True:
        made = {name for node in moved for name in node.output}
        read = {name for node in nodes if made.isdisjoint(node.output) for name in node.input}
        passed = sorted(made & read.union(outputs))
        if fits.issuperset(passed):
            break
        moved = [node for node in moved if fits.issuperset(set(passed).intersection(node.output))]
    if not passed:
        return
    inputs = [value.name for value in model.graph.input]
    parts = onnx.utils.Extractor(model)
    onnx.save(_without_idle_inputs(parts.extract_model(inputs, passed)), image_path)
    onnx.save(_without_idle_inputs(parts.extract_model([*inputs, *passed], outputs)), path)


def _is_of_images(value: Any) -> bool:
    """Whether the shape of a value is (B, R, ...) or (B, ...) with fixed further sizes."""
    first, *rest = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] or [0]
    return first == "batch" and all(isinstance(size, int) for size in (rest[1:] if rest[:1] == ["regions"] else rest))


def _without_idle_inputs(model: Any) -> Any:
    """The model without the inputs that no node reads."""
    read = {name for node in model.graph.node for name in node.input}
    for value in list(model.graph.input):
        if value.name not in read:
            model.graph.input.remove(value)
    return model
