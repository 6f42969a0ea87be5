"""The feature store: region features of images (or token embeddings of questions) by id, read by memory map.

A store is one HDF5 file (`layout`) or a folder of such files with a `manifest.json`; both read alike.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn._internal.hints import did_you_mean
from coattn.features.store.layout import DETECTION_DTYPES, Part, Skipped
from coattn.features.store.manifest import FLIP, MANIFEST, Manifest, Unit
from coattn.features.store.mapped import FlatBatch, MappedStore, PaddedBatch
from coattn.features.store.part_reader import read_part
from coattn.features.store.provenance import joined_record, require_same_extractor, same_extractor
from coattn.features.store.writer import StoreWriter

__all__ = [
    "FeatureStore",
    "FlatBatch",
    "PaddedBatch",
    "StoreWriter",
    "StoredRegions",
    "asset_path",
    "require_same_extractor",
    "same_extractor",
]


_COCO_NAME = re.compile(r"COCO_\w+_0*(\d+)(?:\.jpg)?")


class StoredRegions(NamedTuple):
    """The n regions of one image.

    features (n, D) float32; boxes (n, 4) float32, zeros if the store has none; size (2,) int32 width and height, 0 0 if
    unknown; detections (n,), None if the store has none.
    """

    features: np.ndarray
    boxes: np.ndarray
    size: np.ndarray
    labels: np.ndarray | None
    scores: np.ndarray | None
    attributes: np.ndarray | None = None
    attribute_scores: np.ndarray | None = None


class FeatureStore(MappedStore):
    """Read a feature store. Images are numbered 0 ... len-1 in stored order; `index` finds the number of an id.

    Opening checks every header and reads no row. Rows are memory-mapped on first use, by each process for itself, so
    that a store may be pickled, forked and shared by threads.

    Args:
        path: the file or folder.
        check_finite: refuse features that are NaN or infinite when they are first read.

    Attributes:
        path: the file or folder, absolute.
        record: the extractor of the features (see `provenance`).
        dtype: "float16", "float32" or "int8".
        dim: width D of a feature row.
        image_ids: list of M str.
        lengths: (M,) int64, number of regions of each image.
        sizes: (M, 2) int32, width and height of each original image in pixels; 0 0 where unknown.
        has_boxes: whether the boxes of regions are known.
        skipped: images that could not be read when the features were made.
        parts: the files of the store.

    Raises:
        ValueError: the store is incomplete or damaged, or it is another kind of file.
        OSError: there is no such file, or it cannot be opened.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str], *, check_finite: bool = True) -> None:
        path = Path(path).absolute()  # stays right when the working directory changes
        super().__init__(path, _folder_parts(path) if path.is_dir() else [read_part(path)])
        self._unchecked[:] = check_finite
        self.record: dict[str, Any] = joined_record([part.record for part in self.parts])
        self.image_ids = [image_id for part in self.parts for image_id in part.image_ids]
        self.skipped: list[Skipped] = [entry for part in self.parts for entry in part.skipped]
        self._index = {image_id: index for index, image_id in enumerate(self.image_ids)}
        if len(self._index) < len(self.image_ids):
            twice = next(name for index, name in enumerate(self.image_ids) if self._index[name] != index)
            raise ValueError(f"{self.path}: damaged feature store: image id {twice!r} comes twice")

    def __contains__(self, image_id: object) -> bool:
        return self._stored_name(str(image_id)) in self._index

    def index(self, image_id: int | str) -> int:
        """Position of an image. Where the store has COCO's numbers, its file names are understood too.

        Raises:
            ValueError: the store does not hold it; the message names the nearest ids.
        """
        name = self._stored_name(str(image_id))
        if name in self._index:
            return self._index[name]
        for entry in self.skipped:
            if entry.image_id == name.removesuffix(FLIP):
                raise ValueError(f"{self.path}: image {name!r} ({entry.path}) could not be read: {entry.reason}")
        near = [other for other in self.image_ids if name and (name in other or other in name)]
        hint = f"; nearest: {', '.join(map(repr, near[:3]))}" if near else did_you_mean(name, self.image_ids)
        raise ValueError(f"{self.path}: no features of image {name!r} among {len(self)} images{hint}")

    def _stored_name(self, name: str) -> str:
        """The number instead of a file name of COCO that the store does not hold."""
        match = None if name in self._index else _COCO_NAME.fullmatch(name)
        return match.group(1) if match is not None and match.group(1) in self._index else name

    def read(self, index: int) -> StoredRegions:
        """Read one image by position.

        Raises:
            ValueError: features that are NaN or infinite, or a file that was truncated while it was in use.
        """
        features = self.read_flat(np.array([index])).features.astype(np.float32, copy=False)
        part, start = int(self._part_of[index]), int(self._first_row[index])
        rows = slice(start, start + int(self.lengths[index]))
        columns = self.parts[part].columns
        found = {n: self._map(part, n)[rows].copy() for n in ("boxes", *DETECTION_DTYPES) if n in columns}
        boxes = found.pop("boxes") if self.has_boxes else np.zeros((len(features), 4), np.float32)
        return StoredRegions(features, boxes, self.sizes[index], *(found.get(name) for name in DETECTION_DTYPES))

    def asset(self, name: str) -> Path | None:
        """File or folder kept with the store, e.g. `extractor.safetensors` or `text_encoder`; None if absent."""
        path = asset_path(self.path, name)
        return path if path.exists() else None


def asset_path(store: str | os.PathLike[str], name: str) -> Path:
    """Path of the asset `name` of a store: in the folder of shards, or for a file `X.h5` in the folder `X.assets`."""
    path = Path(store)
    return path / name if path.is_dir() else path.with_suffix(".assets") / name


def _folder_parts(folder: Path) -> list[Part]:
    """Open all shards of a folder and check them against its manifest."""
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: not a feature store: a folder without {MANIFEST}")
    manifest = Manifest.read(folder)
    missing = [unit.shard for unit in manifest.units if not (folder / unit.shard).exists()]
    if missing or not manifest.units:
        raise ValueError(
            f"{folder}: incomplete, {len(missing)} of {len(manifest.units)} shards are missing (first: {missing[:1]}); "
            "run the same command again to finish it"
        )
    return [read_shard(folder, manifest, unit) for unit in manifest.units]


def read_shard(folder: Path, manifest: Manifest, unit: Unit) -> Part:
    """Open one shard of a folder.

    Raises:
        ValueError: the shard is damaged or does not belong to this manifest.
    """
    part = read_part(folder / unit.shard)
    features = part.columns["features"]
    require_same_extractor(manifest.extractor, part.record, wanted_by=MANIFEST, found_in=str(part.path))
    skipped = {entry.image_id for entry in part.skipped}
    kept = [image_id for image_id in unit.images if image_id not in skipped]
    expected = [image_id + suffix for image_id in kept for suffix in (("", FLIP) if manifest.flips else ("",))]
    if (features.shape[1], features.dtype.name, part.image_ids) != (manifest.dim, manifest.dtype, expected):
        raise ValueError(
            f"{part.path}: does not hold what {MANIFEST} plans for it; delete it and run the same command again"
        )
    return part
