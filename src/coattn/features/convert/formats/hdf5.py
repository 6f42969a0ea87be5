"""HDF5 files with the regions of all images.

Layouts are taken from the projects' source: hengyuan-hu/bottom-up-attention-vqa 3925206
(tools/detection_features_converter.py), jnhwkim/ban-vqa (tools/adaptive_detection_features_converter.py),
cvlab-tohoku/Dense-CoAttention-Network 0bc2c2b (preprocess/load_features.ipynb), j-min/VL-T5 7974a32
(VL-T5/src/vqa_data.py). They were not checked on released files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from coattn._internal.files import require_regular
from coattn._internal.hints import listed
from coattn._internal.unpickle import ARRAYS, read_pickle
from coattn.features.convert.formats.arrays import as_rows, read_torch
from coattn.features.convert.formats.base import FileSource, ImageRegions, SourceImage, number
from coattn.features.convert.formats.dicts import regions_from_dict


def open_hdf5(path: Path, names: Sequence[str] = ()) -> h5py.File:
    """Open an HDF5 file that has the data sets `names`. Links to other files are not followed.

    Raises:
        ValueError: not such a file; the message says which data sets it has.
        OSError: it cannot be read.
    """
    require_regular(path)
    try:
        file = h5py.File(path, "r", locking=False)
        local = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
        has = {name for name in local if isinstance(file[name], h5py.Dataset) and not file[name].external}
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path}: not a readable HDF5 file, or cut off ({error!s:.200})") from None
    if missing := [name for name in names if name not in has]:
        file.close()
        raise ValueError(f"{path}: has no {missing[0]} (it has {listed(sorted(has))})")
    return file


def rows_of(file: h5py.File, name: str, index: Any) -> np.ndarray:
    """Read rows of a data set.

    Raises:
        ValueError: they do not exist, or are damaged.
    """
    try:
        return file[name][index]
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{name} cannot be read ({error!s:.120})") from None


class _Hdf5WithTable(FileSource):
    """One HDF5, and a table of image id to number in a second file."""

    extractor = "bottom-up"

    def __init__(self, path: Path, table_path: Path, table: Any, names: Sequence[str]) -> None:
        if not (isinstance(table, dict) and all(isinstance(row, int | np.integer) for row in table.values())):
            raise ValueError(f"{table_path}: not a table of image id to number")
        self.file = open_hdf5(path, names)
        by_row = sorted((int(row), str(name)) for name, row in table.items())
        self.entries = [SourceImage(name, (path,), f"image {row}", row) for row, name in by_row]
        super().__init__(path, tables=[table_path])

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Hengyuan(_Hdf5WithTable):
    """hengyuan-hu's `train36.hdf5` with `train36_imgid2idx.pkl`, and BAN's adaptive kind.

    `image_features` (M, 36, D), `image_bb` (M, 36, 4) in pixels, `spatial_features` (M, 36, 6), whose first four
    columns are the boxes in [0, 1]; the ratio of the two is the image's size. BAN's rows are not split into images of
    36; there `pos_boxes` (M, 2) holds the first row of each image and the row behind its last.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        table = _beside(path, f"{path.stem}_imgid2idx.pkl")
        names = ("image_features", "image_bb", "spatial_features")
        super().__init__(path, table, read_pickle(table, allowed=ARRAYS), names)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        index = entry.key
        if "pos_boxes" in self.file:
            first, end = (number(value, "pos_boxes") for value in rows_of(self.file, "pos_boxes", entry.key))
            index = slice(first, end)
        features, boxes, spatial = (
            as_rows(rows_of(self.file, name, index), name)
            for name in ("image_features", "image_bb", "spatial_features")
        )
        return ImageRegions(features, boxes, _size(boxes, spatial[:, :4]))


class DcnHdf5(_Hdf5WithTable):
    """DCN's `rcnn_trainval.h5` with `rcnn_trainval.pt`.

    `features` (N, D), `boxes` (N, 4) in pixels; for each image `img_start_idx`, `img_end_idx` (its last row, not the
    row behind it), `image_w`, `image_h`.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        table = _beside(path, f"{path.stem}.pt")
        names = ("features", "boxes", "img_start_idx", "img_end_idx", "image_w", "image_h")
        super().__init__(path, table, read_torch(table, "a table"), names)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        names = {"img_start_idx": 0, "img_end_idx": -1, "image_w": 1, "image_h": 1}
        first, last, width, height = (
            number(rows_of(self.file, name, entry.key), name, least=least) for name, least in names.items()
        )
        if not first <= last + 1:
            raise ValueError(f"has the rows {first} to {last}")
        rows = slice(first, last + 1)
        features, boxes = (as_rows(rows_of(self.file, name, rows), name) for name in ("features", "boxes"))
        return ImageRegions(features, boxes, (width, height))


class VlT5(FileSource):
    """VL-T5's `train2014_obj36.h5`: a group for each image, named by its id.

    A group holds `features` (n, D), `boxes` (n, 4) in pixels, `img_w`, `img_h`, and where they were kept `obj_id`,
    `obj_conf`, `attr_id` and `attr_conf` (n,).
    """

    extractor = "vl-t5"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        self._file = open_hdf5(path)
        try:
            links = ((name, self._file.get(name, getclass=True, getlink=True)) for name in self._file)
            names = [name for name, link in links if link is h5py.HardLink]
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path}: not a readable HDF5 file, or cut off ({error!s:.200})") from None
        self.entries = [SourceImage(name, (path,), f"group {name}", name) for name in names]
        super().__init__(path)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one group."""
        group = self._file[entry.key]
        if not isinstance(group, h5py.Group):
            raise ValueError("is no group, as VL-T5 has one for each image")
        local = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
        return regions_from_dict({name: rows_of(group, name, ()) for name in local if name != "captions"})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _beside(path: Path, name: str) -> Path:
    require_regular(path)
    table = path.with_name(name)
    if not table.exists():
        raise ValueError(f"{path}: its table of image ids, {table.name}, is not beside it; put it there")
    return table


def _size(pixels: np.ndarray, shares: np.ndarray) -> tuple[int, int]:
    """Width and height of an image from its boxes in pixels and in [0, 1]: their ratio where it is most exact."""
    if pixels.shape != shares.shape or not len(pixels):
        raise ValueError(f"image_bb has shape {pixels.shape}, spatial_features {shares.shape}: the size is not known")
    sizes = []
    for axis in (0, 1):
        ours, theirs = pixels[:, axis::2].ravel(), shares[:, axis::2].ravel()
        largest = int(np.argmax(theirs))
        ratio = ours[largest] / theirs[largest] if theirs[largest] > 0 else np.nan
        if not (np.isfinite(ratio) and ratio >= 0.5):
            raise ValueError("the size of the image does not follow from image_bb and spatial_features")
        sizes.append(round(float(ratio)))
    return sizes[0], sizes[1]
