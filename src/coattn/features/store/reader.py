"""The feature store: region features of images (or token embeddings of questions) by id, read by memory map.

A store is one HDF5 file (`layout`) or a folder of such files with a `manifest.json`; both read alike.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coattn._internal.hints import did_you_mean
from coattn._internal.kinds import kind_of
from coattn.features.store.catalog import INDEX, Catalog, catalog_of, read_index, write_index
from coattn.features.store.image_ids import coco_number
from coattn.features.store.layout import DETECTION_DTYPES, FileContents
from coattn.features.store.manifest import FLIP, MANIFEST, Manifest, Unit
from coattn.features.store.mapped import FlatBatch, MappedStore, PaddedBatch
from coattn.features.store.part_reader import read_part
from coattn.features.store.provenance import require_same_extractor, same_extractor
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

    Opening reads no row. It reads the index of a folder, or checks the header of every file where there is none. Rows
    are memory-mapped on first use, by each process for itself, so that a store may be pickled, forked and shared by
    threads.

    Args:
        path: the file or folder.
        check_finite: refuse features that are NaN or infinite when they are first read.

    Attributes:
        path: the file or folder, absolute.
        record: the extractor of the features (see `provenance`).
        dtype: "float16", "float32" or "int8".
        dim: width D of a feature row.
        image_ids: sequence of M str.
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
        catalog = _folder_catalog(path) if path.is_dir() else catalog_of([read_part(path)])
        super().__init__(path, catalog.parts, catalog.num_images, catalog.lengths, catalog.sizes)
        self._unchecked[:] = check_finite
        self.record, self.image_ids, self.skipped = catalog.record, catalog.image_ids, catalog.skipped
        if (twice := self.image_ids.first_repeated()) is not None:
            raise ValueError(f"{self.path}: damaged feature store: image id {twice!r} comes twice")

    def __contains__(self, image_id: object) -> bool:
        return self.positions([str(image_id)])[0] >= 0

    def positions(self, image_ids: Sequence[str]) -> np.ndarray:
        """(N,) int64, the position of each image, or -1.

        An image of COCO is found by its number and its file name. Accents may be parts of their letters or separate, as
        in the names of files on macOS.
        """
        found = self.image_ids.find_all(image_ids)
        for place in np.flatnonzero(found < 0).tolist():
            found[place] = self._find_otherwise(image_ids[place])
        return found

    def _find_otherwise(self, image_id: str) -> int:
        """Position of an image whose id is spelled otherwise, or -1."""
        number = coco_number(image_id) or image_id
        for name in (number, *(unicodedata.normalize(form, image_id) for form in ("NFC", "NFD"))):
            if (position := self.image_ids.find(name)) >= 0:
                return position
        return self._coco_files.get(number, -1) if number.isdecimal() else -1

    @cached_property
    def _coco_files(self) -> dict[str, int]:
        """The positions of images that have the file names of COCO, by number."""
        numbers = map(coco_number, self.image_ids)
        return {number: position for position, number in enumerate(numbers) if number is not None}

    def index(self, image_id: int | str) -> int:
        """Position of an image; see `positions`.

        Raises:
            ValueError: the store does not hold it; the message names the nearest ids.
        """
        name = str(image_id)
        if (position := int(self.positions([name])[0])) >= 0:
            return position
        for entry in self.skipped:
            if entry.image_id == name.removesuffix(FLIP):
                raise ValueError(f"{self.path}: image {name!r} ({entry.path}) could not be read: {entry.reason}")
        near = [other for other in self.image_ids if name and (name in other or other in name)]
        hint = f"; nearest: {', '.join(map(repr, near[:3]))}" if near else did_you_mean(name, self.image_ids)
        raise ValueError(f"{self.path}: no features of image {name!r} among {len(self)} images{hint}")

    def image_id(self, position: int) -> str:
        """The id of an image by position."""
        return self.image_ids[position]

    def read(self, index: int) -> StoredRegions:
        """Read one image by position.

        Raises:
            ValueError: features that are NaN or infinite, or a file that was truncated while it was in use.
        """
        features = self.read_flat(np.array([index])).features.astype(np.float32, copy=False)
        ((_, part, start, length),) = self._places(np.array([index]), np.zeros(1, np.int64))
        columns = self._opened(part).columns
        found = {n: columns[n][start : start + length].copy() for n in ("boxes", *DETECTION_DTYPES) if n in columns}
        boxes = found.pop("boxes") if self.has_boxes else np.zeros((length, 4), np.float32)
        return StoredRegions(features, boxes, self.sizes[index], *(found.get(name) for name in DETECTION_DTYPES))

    def asset(self, name: str) -> Path | None:
        """File or folder kept with the store, e.g. `extractor.safetensors` or `text_encoder`; None if absent."""
        path = asset_path(self.path, name)
        return path if path.exists() else None


def asset_path(store: str | os.PathLike[str], name: str) -> Path:
    """Path of the asset `name` of a store: in the folder of shards, or for a file `X.h5` in the folder `X.assets`."""
    path = Path(store)
    return path / name if path.is_dir() else path.with_suffix(".assets") / name


def _folder_catalog(folder: Path) -> Catalog:
    """The catalog of a folder of shards, from its index, or from all shards after checking them."""
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: is {kind_of(folder)} without {MANIFEST}, not a feature store")
    if (folder / INDEX).exists():
        return read_index(folder)
    manifest = Manifest.read(folder)
    missing = [unit.shard for unit in manifest.units if not (folder / unit.shard).exists()]
    if missing or not manifest.units:
        raise ValueError(
            f"{folder}: incomplete, {len(missing)} of {len(manifest.units)} shards are missing (first: {missing[:1]}); "
            "run the same command again to finish it"
        )
    return catalog_of([read_shard(folder, manifest, unit) for unit in manifest.units])


def index_folder(folder: Path, manifest: Manifest) -> None:
    """Write the index of a folder, if all its shards are finished: the last step of what makes a folder of shards.

    Of several processes the last one does it. The earlier ones find shards that are missing, or that are damaged and
    about to be made again.
    """
    if all((folder / unit.shard).exists() for unit in manifest.units):
        try:
            files = [read_shard(folder, manifest, unit) for unit in manifest.units]
        except (OSError, ValueError):
            return
        write_index(folder, catalog_of(files))


def sound_shard(folder: Path, manifest: Manifest, unit: Unit) -> FileContents | None:
    """Open one shard of a folder if it exists and is sound; None if it has to be made, or made again."""
    if not (folder / unit.shard).exists():
        return None
    try:
        return read_shard(folder, manifest, unit)
    except ValueError:
        return None


def read_shard(folder: Path, manifest: Manifest, unit: Unit) -> FileContents:
    """Open one shard of a folder.

    Raises:
        ValueError: the shard is damaged or does not belong to this manifest.
    """
    contents = read_part(folder / unit.shard)
    features, path = contents.part.columns["features"], contents.part.path
    require_same_extractor(manifest.extractor, contents.record, wanted_by=MANIFEST, found_in=str(path))
    skipped = {entry.image_id for entry in contents.skipped}
    kept = [image_id for image_id in unit.images if image_id not in skipped]
    expected = [image_id + suffix for image_id in kept for suffix in (("", FLIP) if manifest.flips else ("",))]
    if (features.shape[1], features.dtype.name) != (manifest.dim, manifest.dtype) or contents.image_ids != expected:
        raise ValueError(
            f"{path}: does not hold what {MANIFEST} plans for it; delete it and run the same command again"
        )
    return contents
