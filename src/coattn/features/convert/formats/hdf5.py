"""HDF5 files with the regions of all images, beside a table of image id to number.

Layouts are taken from the projects' source (hengyuan-hu/bottom-up-attention-vqa 3925206:
tools/detection_features_converter.py; jnhwkim/ban-vqa: tools/adaptive_detection_features_converter.py;
cvlab-tohoku/Dense-CoAttention-Network 0bc2c2b: preprocess/load_features.ipynb); not checked on files released there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from coattn._internal.unpickle import ARRAYS, read_pickle
from coattn.features.convert.formats.arrays import as_rows, read_torch
from coattn.features.convert.formats.base import FileSource, ImageRegions, SourceImage, number


class _Hdf5(FileSource):
    """What both projects have in common."""

    extractor = "bottom-up"

    def __init__(self, path: Path, table_path: Path, table: Any, names: Sequence[str]) -> None:
        if not (isinstance(table, dict) and all(isinstance(row, int | np.integer) for row in table.values())):
            raise ValueError(f"{table_path}: not a table of image id to number")
        try:
            self.file = h5py.File(path, "r", locking=False)
            has = {str(name): self.file[name] for name in self.file}
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path}: not a readable HDF5 file, or cut off ({error!s:.200})") from None
        if missing := [name for name in names if not isinstance(has.get(name), h5py.Dataset)]:
            raise ValueError(f"{path}: has no {missing[0]} (it has {', '.join(sorted(has)) or 'nothing'})")
        by_row = sorted((int(row), str(name)) for name, row in table.items())
        self.entries = [SourceImage(name, (path,), f"image {row}", row) for row, name in by_row]
        super().__init__(path, tables=[table_path])

    def rows(self, name: str, index: Any) -> np.ndarray:
        """Rows of a data set.

        Raises:
            ValueError: they are not there, or damaged.
        """
        try:
            return self.file[name][index]
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{name} cannot be read ({error!s:.120})") from None

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Hengyuan(_Hdf5):
    """hengyuan-hu's `train36.hdf5` with `train36_imgid2idx.pkl`, and BAN's adaptive kind.

    `image_features` (M, 36, D), `image_bb` (M, 36, 4) in pixels, `spatial_features` (M, 36, 6), whose first four
    columns are the boxes in [0, 1]; the image's size is what lies between the two. BAN's rows are not cut into images
    of 36; `pos_boxes` (M, 2) says which are whose, the first and that behind the last.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        path.open("rb").close()
        table = _beside(path, f"{path.stem}_imgid2idx.pkl")
        names = ("image_features", "image_bb", "spatial_features")
        super().__init__(path, table, read_pickle(table, allowed=ARRAYS), names)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        index = entry.key
        if "pos_boxes" in self.file:
            first, end = (number(value, "pos_boxes") for value in self.rows("pos_boxes", entry.key))
            index = slice(first, end)
        features, boxes, spatial = (
            as_rows(self.rows(name, index), name) for name in ("image_features", "image_bb", "spatial_features")
        )
        return ImageRegions(features, boxes, _size(boxes, spatial[:, :4]))


class DenseCoAttention(_Hdf5):
    """DCN's `rcnn_trainval.h5` with `rcnn_trainval.pt`.

    `features` (N, D), `boxes` (N, 4) in pixels; for each image `img_start_idx`, `img_end_idx` (the last row, not that
    behind it), `image_w`, `image_h`.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        path.open("rb").close()
        table = _beside(path, f"{path.stem}.pt")
        names = ("features", "boxes", "img_start_idx", "img_end_idx", "image_w", "image_h")
        super().__init__(path, table, read_torch(table, "a table"), names)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        names = {"img_start_idx": 0, "img_end_idx": -1, "image_w": 1, "image_h": 1}
        first, last, width, height = (
            number(self.rows(name, entry.key), name, least=least) for name, least in names.items()
        )
        if not first <= last + 1:
            raise ValueError(f"has the rows {first} to {last}")
        rows = slice(first, last + 1)
        features, boxes = (as_rows(self.rows(name, rows), name) for name in ("features", "boxes"))
        return ImageRegions(features, boxes, (width, height))


def _beside(path: Path, name: str) -> Path:
    table = path.with_name(name)
    if not table.exists():
        raise ValueError(f"{path}: its table of image ids, {table.name}, is not beside it; put it there")
    return table


def _size(pixels: np.ndarray, shares: np.ndarray) -> tuple[int, int]:
    """Width and height of an image whose boxes are known in pixels and in [0, 1]: the ratio where it is most exact."""
    if pixels.shape != shares.shape or not len(pixels):
        raise ValueError(f"image_bb has shape {pixels.shape}, spatial_features {shares.shape}: the size is not known")
    sizes = []
    for axis in (0, 1):
        ours, theirs = pixels[:, axis::2].ravel(), shares[:, axis::2].ravel()
        largest = int(np.argmax(theirs))
        ratio = ours[largest] / theirs[largest] if theirs[largest] > 0 else np.nan
        if not (np.isfinite(ratio) and ratio >= 0.5):
            raise ValueError("image_bb and spatial_features give no size of the image")
        sizes.append(round(float(ratio)))
    return sizes[0], sizes[1]
