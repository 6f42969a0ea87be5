"""Grids of cells: grid-feats' `.pth` files, and clevr-iep's HDF5.

Layouts are taken from the projects' source: facebookresearch/grid-feats-vqa (extract_grid_feature.py) and
facebookresearch/clevr-iep (scripts/extract_features.py). They were not checked on released files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from coattn.features.convert.formats.arrays import read_torch
from coattn.features.convert.formats.base import (
    FileSource,
    FolderSource,
    ImageRegions,
    SourceImage,
    files_of,
    image_name,
)
from coattn.features.convert.formats.hdf5 import open_hdf5, rows_of
from coattn.features.extract.extractors.base import grid_boxes


class GridFeats(FolderSource):
    """A tensor (1, D, H, W) for each image (Jiang et al. 2020, arXiv 2001.03615), to H x W regions, row by row.

    Image sizes are not in these files and stay unknown. Tensors are read without running code of a pickle.
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
        return regions_of_grid(grid.reshape(grid.shape[-3:]).float().numpy())


class ClevrIep(FileSource):
    """One HDF5 with `features` (N, 1024, 14, 14) of all images of a split (Johnson et al. 2017, arXiv 1705.03633).

    Images are numbered in the order of their file names, from 0; `--ids 'CLEVR_val_{:06d}'` makes CLEVR's names. Image
    sizes stay unknown.
    """

    extractor = "clevr-iep"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        self._file = open_hdf5(path, ("features",))
        shape = self._file["features"].shape
        if len(shape) != 4:
            raise ValueError(f"{path}: features have shape {shape}, not (images, D, H, W)")
        self.entries = [SourceImage(str(index), (path,), f"image {index}", index) for index in range(shape[0])]
        super().__init__(path)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        return regions_of_grid(rows_of(self._file, "features", entry.key))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def regions_of_grid(grid: np.ndarray) -> ImageRegions:
    """Regions from a grid (D, H, W): one for each cell, row by row."""
    dim, rows, columns = grid.shape
    cells = np.ascontiguousarray(grid.reshape(dim, rows * columns).T, np.float32)
    return ImageRegions(cells, grid_boxes(rows, columns), (0, 0))
