"""The extractor `descriptor`: colors and edge directions in the cells of a grid. It needs no pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL
from PIL import Image

from coattn.features.extract.extractors.base import Regions, check_size, grid_boxes

_COLOR_BINS = 3  # per channel
_DIRECTIONS = 16
_DIM = 12 + _COLOR_BINS**3 + _DIRECTIONS + 1


class Descriptor:
    """56 numbers for each cell of a grid laid over the image.

    - 0-11: mean, standard deviation, minimum and maximum of red, green and blue, in [0, 1]
    - 12-38: square roots of a color histogram with 3 x 3 x 3 bins
    - 39-54: histogram of the gradient's direction, weighted by its magnitude, with sum 1. The direction points to the
      brighter side. Bin 0 is to the right and bin 4 downwards, so that vertical edges fall into the middle of a bin.
    - 55: logarithm of the mean gradient magnitude

    Images are first resized to `size` (and stretched if need be), so that a cell always covers the same number of
    pixels and features of large and small images are comparable.

    Args:
        grid: rows and columns.
        size: height and width to resize to, multiples of `grid`; None: 16 pixels a cell.

    Raises:
        ValueError: the size is not a multiple of the grid.
    """

    dim = _DIM
    weights = None
    parallel = False

    def __init__(self, grid: Sequence[int] = (4, 4), size: Sequence[int] | None = None) -> None:
        rows, columns = grid
        height, width = size or (16 * rows, 16 * columns)
        check_size("descriptor", (height, width))
        if min(rows, columns, height, width) < 1 or height % rows or width % columns:
            raise ValueError(
                f"descriptor: size {height}x{width} is not a multiple of grid {rows}x{columns}; "
                f"for example --size {16 * rows}x{16 * columns}"
            )
        self.grid = (rows, columns)
        self.size = (height, width)
        self.num_regions = rows * columns
        self._boxes = grid_boxes(rows, columns)

    @property
    def record(self) -> dict[str, Any]:
        """Name and settings of this extractor."""
        return {
            "name": "descriptor",
            "settings": {"grid": list(self.grid), "size": list(self.size)},
            "weights": None,
            "versions": {"pillow": PIL.__version__, "numpy": np.__version__},
        }

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize to (height, width, 3) uint8."""
        height, width = self.size
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)

    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        if not pixels:
            return []
        batch = np.stack(pixels).transpose(3, 0, 1, 2)  # (3, B, height, width)
        color = self._cells(np.divide(batch, 255, dtype=np.float32))  # (3, cells, pixels)
        each = np.stack([color.mean(axis=2), color.std(axis=2), color.min(axis=2), color.max(axis=2)])
        statistics = each.transpose(2, 0, 1).reshape(-1, 12)
        features = np.concatenate([statistics, self._color_histogram(batch), *self._edges(batch)], axis=1)
        features = features.reshape(len(pixels), self.num_regions, _DIM).astype(np.float32)
        return [Regions(rows, self._boxes) for rows in features]

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Describe RGB images of any size."""
        return self.describe([self.prepare(image) for image in images])

    def _cells(self, values: np.ndarray) -> np.ndarray:
        """(..., B, height, width) to (..., B * rows * columns, pixels of a cell)."""
        rows, columns = self.grid
        height, width = self.size[0] // rows, self.size[1] // columns
        split = values.reshape(*values.shape[:-2], rows, height, columns, width).swapaxes(-3, -2)
        return split.reshape(*values.shape[:-3], -1, height * width)

    def _color_histogram(self, batch: np.ndarray) -> np.ndarray:
        """Square root of the share of each color bin: (cells, 27)."""
        red, green, blue = batch.astype(np.int32) * _COLOR_BINS // 256
        bins = self._cells((red * _COLOR_BINS + green) * _COLOR_BINS + blue)
        return np.sqrt(_histogram(bins, _COLOR_BINS**3) / bins.shape[1])

    def _edges(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Direction histogram (cells, 16) and log mean magnitude (cells, 1) of the gray image's gradient."""
        gray = batch.sum(axis=0, dtype=np.float32) / (3 * 255)
        # Central differences over the whole image, its edge repeated, so that edges between cells count too.
        padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
        across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
        down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
        magnitude = self._cells(np.hypot(across, down))
        direction = np.rint(np.arctan2(down, across) * (_DIRECTIONS / (2 * np.pi))).astype(np.int32) % _DIRECTIONS
        histogram = _histogram(self._cells(direction), _DIRECTIONS, magnitude)
        total = histogram.sum(axis=1, keepdims=True)
        flat = np.log(1e-3 + magnitude.mean(axis=1, keepdims=True))
        return histogram / np.where(total > 0, total, 1), flat


def _histogram(bins: np.ndarray, num_bins: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Histogram of each row of `bins` (n, k): (n, num_bins) float64."""
    offset = np.arange(len(bins))[:, None] * num_bins
    flat_weights = None if weights is None else weights.ravel()
    counts = np.bincount((bins + offset).ravel(), flat_weights, minlength=len(bins) * num_bins)
    return counts.reshape(len(bins), num_bins).astype(np.float64)
