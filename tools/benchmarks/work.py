"""The use of the machine: the share of its matrix rate that computed the questions, and the share of padding."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import conventional
from benchmarks.context import Row
from benchmarks.conventional import Sizes
from benchmarks.ours import operations
from benchmarks.timing import summary
from coattn.training.data.split import Split

FORWARD, STEP = 1, 3  # passes: the gradient of a product is two products
BatchShape = tuple[int, int, int]  # questions, regions, tokens


def work(
    sizes: Sizes, split: Split, shapes: Sequence[BatchShape], rates: Sequence[float], *, passes: int, limit: float
) -> Row:
    """Columns of a row.

    Args:
        sizes: of the model.
        split: the questions.
        shapes: the batches that they were computed in.
        rates: questions per second.
        passes: see `FORWARD` and `STEP`.
        limit: FLOP/s of matrix products.
    """
    count = len(split.images)
    done = passes * sum(questions * operations(sizes, *size) for questions, *size in shapes) / count
    regions, tokens = (sum(shape[0] * shape[axis] for shape in shapes) for axis in (1, 2))
    return {
        "share of matrix rate": summary([rate * done / limit for rate in rates]),
        "padding": round(1 - float(split.num_regions.sum()) / regions, 3),
        "padding of tokens": round(1 - float(split.num_tokens.sum()) / tokens, 3),
    }


def conventional_shapes(split: Split) -> list[BatchShape]:
    """The shape of all questions as one batch of the conventional size."""
    return [(len(split.images), conventional.NUM_REGIONS, conventional.NUM_TOKENS)]
