"""Interface of extractors: images in, regions (features and boxes) out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


class Regions(NamedTuple):
    """The n regions of one image.

    features (n, D) float32; boxes (n, 4) float32, x1 y1 x2 y2 in [0, 1] of the image. Detectors add labels (n,) int64,
    the classes, and scores (n,) float32, their confidences.
    """

    features: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray | None = None
    scores: np.ndarray | None = None


class Extractor(Protocol):
    """Turns images into regions. Other images of a batch change the regions of an image by rounding only.

    Attributes:
        record: name, settings and weights of this extractor (see `provenance`).
        dim: width D of a feature row.
        num_regions: largest possible number of regions of an image, with which units of work are planned.
        weights: the tensors of its network, to be kept beside the features; None if it has none.
        parallel: whether calls of `describe` in several threads are safe and faster.
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
        """Resize an RGB image to the (height, width, 3) uint8 that `describe` takes. Runs in loading threads."""
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


class Reading:
    """An extractor with settings of how image files are read, which its record keeps.

    Args:
        extractor: the extractor.
        window: values of 16-bit images that become black and white, see `load_image`.
        reduced_decoding: decode JPEG files at a half, a quarter or an eighth of their size where that is still at least
            the size of the extractor's input, see `load_image`.

    Raises:
        ValueError: not a window of 16 bits; reduced decoding for an extractor whose input has no fixed size.
    """

    def __init__(
        self, extractor: Extractor, *, window: Sequence[int] | None = None, reduced_decoding: bool = False
    ) -> None:
        self.arguments: dict[str, Any] = {}  # of `load_image`
        self._settings: dict[str, Any] = {}
        if window is not None:
            low, high = window
            if not 0 <= low < high <= 65535:
                raise ValueError(f"window {low}-{high}: must be two different values of 16 bits, the smaller one first")
            self.arguments["window"], self._settings["window"] = (int(low), int(high)), [int(low), int(high)]
        if reduced_decoding:
            size = getattr(extractor, "input_size", None)
            if size is None:
                name = extractor.record["name"]
                raise ValueError(f"{name} cannot decode images at a reduced size, only networks with a grid can")
            self.arguments["at_least"], self._settings["reduced_decoding"] = size, True
        self.extractor, self.dim, self.num_regions = extractor, extractor.dim, extractor.num_regions
        self.weights, self.parallel = extractor.weights, extractor.parallel
        self.prepare, self.describe = extractor.prepare, extractor.describe

    @property
    def record(self) -> dict[str, Any]:
        """The record of the extractor, with these settings among its own."""
        record = self.extractor.record
        return {**record, "settings": {**record["settings"], **self._settings}}

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Prepare and describe RGB images of any size."""
        return self.extractor(images)


def reading_of(extractor: Extractor) -> dict[str, Any]:
    """The arguments of `load_image` with which images for an extractor are loaded."""
    return extractor.arguments if isinstance(extractor, Reading) else {}


_LONGEST_SIDE = 8192


def check_size(name: str, size: Sequence[int]) -> None:
    """Refuse inputs that no network needs and that a damaged or hostile record could ask for.

    Raises:
        ValueError: a side of more than 8192 pixels.
    """
    if max(size) > _LONGEST_SIDE:
        raise ValueError(
            f"{name}: size {'x'.join(map(str, size))} is too large; the limit is {_LONGEST_SIDE} on a side"
        )
