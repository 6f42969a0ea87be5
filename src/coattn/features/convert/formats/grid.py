"""Grids of cells: grid-feats' `.pth` files.

The layout is taken from facebookresearch/grid-feats-vqa (extract_grid_feature.py), not checked on files released there.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from torch import Tensor

from coattn.features.convert.formats.arrays import read_torch
from coattn.features.convert.formats.base import FolderSource, ImageRegions, SourceImage, files_of, image_name
from coattn.features.extract.extractors.base import grid_boxes


class GridFeats(FolderSource):
    """A tensor (1, D, H, W) for each image (Jiang et al. 2020, arXiv 2001.03615), to H x W regions, row by row.

    Image sizes are not kept there, and stay unknown here. Tensors are read without what a pickle may run besides.
    """

    extractor = "grid-feats"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        entries = [SourceImage(image_name(file), (file,)) for file in files_of(path, ".pth")]
        super().__init__(path, entries, kind=".pth files")

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one file."""
        grid = read_torch(entry.files[0], "a tensor")
        if not isinstance(grid, Tensor) or grid.dim() not in (3, 4) or (grid.dim() == 4 and len(grid) != 1):
            shape = f"a tensor of shape {tuple(grid.shape)}" if isinstance(grid, Tensor) else type(grid).__name__
            raise ValueError(f"holds {shape}, not one grid (1, D, H, W)")
        dim, rows, columns = grid.shape[-3:]
        cells = grid.reshape(dim, rows * columns).T.float().contiguous().numpy()
        return ImageRegions(cells, grid_boxes(rows, columns), (0, 0))


def square_grid(cells: int) -> np.ndarray:
    """Boxes of the cells of a square grid.

    Raises:
        ValueError: so many cells make no square.
    """
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(f"has no boxes, and {cells} rows are no square grid")
    return grid_boxes(side, side)
