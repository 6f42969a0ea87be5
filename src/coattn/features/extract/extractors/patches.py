"""The extractor `patches`: the pixels of a grid's cells, as they are. It needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL
from PIL import Image

from coattn.features.extract.extractors.base import Regions, check_size, grid_boxes


class Patches:
    """The pixels of each cell of a grid, as one row: line by line, each pixel red, green, blue, from -1 to 1.

    Images are stretched to `size`. Width of a row: 3 times the pixels of a cell.

    Args:
        grid: rows and columns.
        size: height and width to resize to, multiples of `grid`; None: 8 pixels a cell.

    Raises:
        ValueError: the size is not a multiple of the grid.
    """

    weights = None
    parallel = False

    def __init__(self, grid: Sequence[int] = (8, 8), size: Sequence[int] | None = None) -> None:
        rows, columns = grid
        height, width = size or (8 * rows, 8 * columns)
        check_size("patches", (height, width))
        if min(rows, columns, height, width) < 1 or height % rows or width % columns:
            raise ValueError(
                f"patches: size {height}x{width} is not a multiple of grid {rows}x{columns}; "
                f"for example --size {8 * rows}x{8 * columns}"
            )
        self.grid, self.size = (rows, columns), (height, width)
        self.num_regions = rows * columns
        self.dim = 3 * height * width // self.num_regions
        self._boxes = grid_boxes(rows, columns)

    @property
    def record(self) -> dict[str, Any]:
        """Name and settings of this extractor."""
        return {
            "name": "patches",
            "settings": {"grid": list(self.grid), "size": list(self.size)},
            "weights": None,
            "versions": {"pillow": PIL.__version__},
        }

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize to (height, width, 3) uint8."""
        height, width = self.size
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        return [Regions(self._rows(image), self._boxes) for image in pixels]

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Describe RGB images of any size."""
        return self.describe([self.prepare(image) for image in images])

    def _rows(self, image: np.ndarray) -> np.ndarray:
        rows, columns = self.grid
        height, width = self.size[0] // rows, self.size[1] // columns
        cells = image.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
        return cells.reshape(self.num_regions, self.dim).astype(np.float32) / 127.5 - 1
