"""Grids of cells: grid-feats' `.pth` files.

The layout is taken from facebookresearch/grid-feats-vqa (extract_grid_feature.py), not checked on files released there.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coattn.features.formats.base import Entry, FolderSource, ImageRegions, files_of, image_name
from coattn.features.regions import grid_boxes


class GridFeats(FolderSource):
    """A tensor (1, D, H, W) for each image (Jiang et al. 2020, arXiv 2001.03615), to H x W regions, row by row.

    Image sizes are not kept there, and stay unknown here. Tensors are read without what a pickle may run besides.
    """

    extractor = "grid-feats"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        entries = [Entry(image_name(file), (file,)) for file in files_of(path, ".pth")]
        super().__init__(path, entries, kind=".pth files")

    def read(self, entry: Entry) -> ImageRegions:
        """Read one file."""
        path = entry.files[0]
        try:
            grid = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"this pickle holds more than a tensor, which is not read because it can run code ({error!s:.120})"
            ) from None
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"not a readable tensor of torch ({type(error).__name__}: {error!s:.80})") from None
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
