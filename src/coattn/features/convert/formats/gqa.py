"""GQA's own features: `gqa_objects_0.h5` ... or `gqa_spatial_0.h5` ..., with their info JSON.

The layout is taken from MILVLG/openvqa 7260489 (data/gqa/gqa_h52npz.py), which reads the files that GQA's authors
released (Hudson & Manning 2019, arXiv 1902.09506). It was not checked on the released files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from coattn._internal.files import read_json
from coattn.features.convert.formats.arrays import as_rows
from coattn.features.convert.formats.base import FileSource, ImageRegions, SourceImage, number
from coattn.features.convert.formats.grid import regions_of_grid
from coattn.features.convert.formats.hdf5 import open_hdf5, rows_of

_KINDS = {"objects": "gqa-objects", "spatial": "gqa-grid"}


class GqaHdf5(FileSource):
    """A folder of GQA's HDF5 files of one kind, or its info JSON.

    The info maps image id to `file` and `idx`, the number of the HDF5 and the image's place in it; for objects also to
    `width`, `height` and `objectsNum`. Objects: `features` (m, 100, D) and `bboxes` (m, 100, 4) in pixels, of which
    the first `objectsNum` count. Spatial: `features` (m, D, 7, 7), a grid of cells; image sizes stay unknown.

    Raises:
        ValueError: no info JSON, or one of both kinds; an HDF5 file that it names is missing.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        infos = sorted(path.glob("gqa_*_info.json")) if path.is_dir() else [path]
        if len(infos) != 1:
            found = ", ".join(info.name for info in infos) or "none"
            raise ValueError(
                f"{path}: needs one gqa_objects_info.json or gqa_spatial_info.json, found {found}; give the info file"
            )
        info_path = infos[0]
        kind = next((kind for kind in _KINDS if kind in info_path.name), None)
        if kind is None:
            raise ValueError(f"{info_path}: its name must hold 'objects' or 'spatial', as GQA's does")
        self.kind, self.extractor = kind, _KINDS[kind]
        self._info = read_json(info_path)
        if not isinstance(self._info, dict) or not all(isinstance(value, dict) for value in self._info.values()):
            raise ValueError(f"{info_path}: not an object of image id to place")
        places = {name: self._place(info_path, name) for name in self._info}
        paths = {file: info_path.with_name(f"gqa_{kind}_{file}.h5") for file, _ in places.values()}
        names = ("features", "bboxes") if kind == "objects" else ("features",)
        self._files: dict[int, h5py.File] = {file: open_hdf5(paths[file], names) for file in sorted(paths)}
        ordered = sorted(places, key=places.__getitem__)
        self.entries = [SourceImage(name, (paths[places[name][0]],), f"image {name}", places[name]) for name in ordered]
        super().__init__(info_path, tables=[paths[file] for file in sorted(paths)])

    def _place(self, path: Path, name: str) -> tuple[int, int]:
        try:
            return number(self._info[name].get("file"), "file"), number(self._info[name].get("idx"), "idx")
        except ValueError as error:
            raise ValueError(f"{path}: image {name!r}: {error}") from None

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one image."""
        file, index = entry.key
        features = rows_of(self._files[file], "features", index)
        if self.kind == "spatial":
            if features.ndim != 3:
                raise ValueError(f"features have shape {features.shape}, not (D, H, W)")
            return regions_of_grid(features)
        info: dict[str, Any] = self._info[entry.name]
        count = number(info.get("objectsNum"), "objectsNum")
        boxes = as_rows(rows_of(self._files[file], "bboxes", index), "bboxes")
        if count > min(len(features), len(boxes)):
            raise ValueError(f"objectsNum is {count}, but there are {len(features)} features and {len(boxes)} boxes")
        size = number(info.get("width"), "width", least=1), number(info.get("height"), "height", least=1)
        return ImageRegions(as_rows(features, "features")[:count], boxes[:count], size)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
