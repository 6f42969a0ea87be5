"""MMF's features: `.npy` files with `_info.npy` beside them, or an LMDB of both.

Layouts are taken from facebookresearch/mmf (tools/scripts/features/extract_features_vmb.py, lmdb_conversion.py); none
was checked on files released there. Mind that the mode `extract` of that lmdb_conversion.py writes the width as height.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coattn._internal.files import require
from coattn._internal.unpickle import ARRAYS, unpickle
from coattn.features.convert.formats.arrays import as_rows, detections, read_npy
from coattn.features.convert.formats.base import (
    FileSource,
    FolderSource,
    ImageRegions,
    SourceImage,
    files_of,
    image_name,
    number,
)
from coattn.features.convert.formats.grid import square_grid
from coattn.features.extract.extractors.base import grid_boxes

_INFO = "_info.npy"


class MmfNpy(FolderSource):
    """`NAME.npy` (n, D) with `NAME_info.npy`, a pickled dict of `bbox` in pixels, `image_width`, `image_height`,
    `objects` and `cls_prob`. An array without it is a grid: (H, W, D), or (H * W, D) of a square one.
    """

    extractor = "mmf-detectron"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        files = [file for file in files_of(path, ".npy") if not file.name.endswith(_INFO)]
        entries = [
            SourceImage(image_name(file), tuple(f for f in (file, _info_of(file)) if f.exists())) for file in files
        ]
        super().__init__(path, entries, kind=".npy files")

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        values = []
        for path in entry.files:
            with path.open("rb") as file:
                values.append(read_npy(file, str(path)))
        return _regions(values[0], values[1] if len(values) > 1 else None)


class MmfLmdb(FileSource):
    """An LMDB of pickled dicts: `features` and what `_info.npy` holds; the value under `keys` lists the images.

    Raises:
        ModuleNotFoundError: the package lmdb is not installed.
    """

    extractor = "mmf-detectron"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        data = path / "data.mdb" if path.is_dir() else path
        data.open("rb").close()
        self._lmdb = require("lmdb", "lmdb")
        try:
            self._environment = self._lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
            pages = self._environment.info()["last_pgno"] + 1
            if pages * self._environment.stat()["psize"] > data.stat().st_size:  # reading there would end the process
                raise ValueError(f"{path}: LMDB is cut off: {pages} pages do not fit in {data.stat().st_size} bytes")
            self._transaction = self._environment.begin()
            listed = self._transaction.get(b"keys")
            with self._transaction.cursor() as cursor:
                keys = None if listed else [bytes(key) for key in cursor.iternext(values=False)]
        except self._lmdb.Error as error:
            raise ValueError(f"{path}: not a readable LMDB, or damaged ({error})") from None
        if keys is None:
            found = unpickle(bytes(listed), f"{path}, keys", allowed=ARRAYS)
            if not isinstance(found, list | tuple) or not all(isinstance(key, bytes | str) for key in found):
                raise ValueError(f"{path}: the value under 'keys' is no list of keys")
            keys = [key.encode() if isinstance(key, str) else bytes(key) for key in found]
        texts = [(key, key.decode("utf-8", errors="replace")) for key in keys]
        self.entries = [SourceImage(text.rpartition("/")[2], (data,), repr(text), key) for key, text in texts]
        super().__init__(data)
        self.path = path

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        try:
            value = self._transaction.get(entry.key)
        except self._lmdb.Error as error:
            raise ValueError(f"cannot be read ({error})") from None
        if value is None:
            raise ValueError("is listed under 'keys' but is not there")
        item = unpickle(bytes(value), entry.where, allowed=ARRAYS)
        if not isinstance(item, dict) or "features" not in item:
            raise ValueError("holds no dict with features")
        return _regions(item["features"], item if item.get("bbox") is not None else None)

    def close(self) -> None:
        """Close the environment."""
        self._transaction.abort()
        self._environment.close()


def _info_of(file: Path) -> Path:
    return file.with_name(f"{file.stem}{_INFO}")


def _regions(features: Any, info: Any) -> ImageRegions:
    if isinstance(features, np.ndarray) and features.ndim == 3 and len(features) == 1:
        features = features[0]
    if info is None and isinstance(features, np.ndarray) and features.ndim == 3:
        rows, columns, dim = features.shape
        return ImageRegions(as_rows(features.reshape(-1, dim), "features"), grid_boxes(rows, columns), (0, 0))
    features = as_rows(features, "features")
    if info is None:
        return ImageRegions(features, square_grid(len(features)), (0, 0))
    if not isinstance(info, dict) or info.get("bbox") is None:
        raise ValueError(f"{_INFO} holds no dict with bbox")
    size = tuple(number(info.get(name), name, least=1) for name in ("image_width", "image_height"))
    return ImageRegions(features, as_rows(info["bbox"], "bbox"), (size[0], size[1]), **detections(info))
