"""Features of MMF and ViLBERT: `.npy` files, with `_info.npy` beside them or as one dict, or an LMDB of dicts.

Layouts are taken from facebookresearch/mmf (tools/scripts/features/extract_features_vmb.py, extract_resnet152_feat.py,
lmdb_conversion.py) and facebookresearch/vilbert-multi-task (script/extract_features.py, script/convert_to_lmdb.py,
vilbert/datasets/_image_features_reader.py). They were not checked on released files. Note that the mode `extract` of
MMF's lmdb_conversion.py writes the width as height.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coattn._internal.files import require, require_regular
from coattn._internal.unpickle import ARRAYS, unpickle
from coattn.features.convert.formats.arrays import read_npy
from coattn.features.convert.formats.base import (
    FileSource,
    FolderSource,
    ImageRegions,
    SourceImage,
    files_of,
    image_name,
)
from coattn.features.convert.formats.dicts import from_array, regions_from_dict

_INFO = "_info.npy"


class MmfNpy(FolderSource):
    """`NAME.npy` in one of three forms, by image.

    - (n, D) with `NAME_info.npy`, a pickled dict of `bbox` in pixels, `image_width`, `image_height`, `objects` and
      `cls_prob`. Without the info, boxes and size stay unknown.
    - A pickled dict of all that (ViLBERT).
    - A grid (H, W, D) or (1, H, W, D).
    """

    extractor = "mmf-detectron"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        files = [file for file in files_of(path, ".npy") if not file.name.endswith(_INFO)]
        infos = {file: file.with_name(f"{file.stem}{_INFO}") for file in files}
        entries = [SourceImage(image_name(f), (f, infos[f]) if infos[f].exists() else (f,)) for f in files]
        super().__init__(path, entries, kind=".npy files")

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        values = []
        for path in entry.files:
            require_regular(path)
            with path.open("rb") as file:
                values.append(read_npy(file, str(path)))
        features = values[0]
        if isinstance(features, Mapping):
            return regions_from_dict(features)
        if len(values) == 1:
            return ImageRegions(*from_array(features), (0, 0))
        if not isinstance(values[1], Mapping):
            raise ValueError(f"{_INFO} holds no dict")
        return regions_from_dict({**values[1], "features": features})


class MmfLmdb(FileSource):
    """An LMDB of pickled dicts with `features` and, as far as known, boxes, size and classes (see `dicts`).

    The value under `keys` lists the images.

    Raises:
        ModuleNotFoundError: the package lmdb is not installed.
    """

    extractor = "mmf-detectron"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        data = path / "data.mdb" if path.is_dir() else path
        require_regular(data)
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
        if not isinstance(item, Mapping):
            raise ValueError(f"holds no dict, but {type(item).__name__}")
        return regions_from_dict(item)

    def close(self) -> None:
        """Close the environment."""
        self._transaction.abort()
        self._environment.close()
