"""What an extractor is: pictures in, regions (features and boxes) out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


class Regions(NamedTuple):
    """The n regions of one image.

    features (n, D) float32; boxes (n, 4) float32, x1 y1 x2 y2 in [0, 1] of the image; of detectors also labels (n,)
    int64, the classes, and scores (n,) float32, their confidences.
    """

    features: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray | None = None
    scores: np.ndarray | None = None


class Extractor(Protocol):
    """Turns images into regions, each image for itself: the batch it comes in changes nothing beyond rounding.

    Attributes:
        record: what this extractor is (see `provenance`).
        dim: width D of a feature row.
        num_regions: the most regions an image can have; units of work are planned with it.
        weights: the tensors it works with, to be kept beside the features; None if it has none.
        parallel: whether several threads may call `describe` at once, and it is worth their while.
    """

    @property
    def record(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def num_regions(self) -> int: ...  # noqa: D102
    @property
    def weights(self) -> Mapping[str, Tensor] | None: ...  # noqa: D102
    @property
    def parallel(self) -> bool: ...  # noqa: D102

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Shrink an RGB image to the (height, width, 3) uint8 that `describe` wants. Runs in loading threads."""
        ...

    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        ...

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Prepare and describe RGB images of any size."""
        ...


def grid_boxes(rows: int, columns: int) -> np.ndarray:
    """Boxes of a grid's cells, row by row from the top left: (rows * columns, 4) float32 in [0, 1]."""
    y, x = np.mgrid[:rows, :columns]
    corners = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=-1)
    return corners.reshape(-1, 4).astype(np.float32)
