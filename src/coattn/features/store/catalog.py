"""Everything about a store except its rows, gathered from its files, or from the index of a folder of shards.

The index is `index.npz`, written when the last shard is finished. It repeats what the manifest and the headers of the
shards say, so that opening a store of a million images takes the time of reading one file instead of that of opening
thousands of HDF5 files. Numpy's format checks the content of each array by its CRC-32.

about        JSON: format, version, extractor, dtype, dim; size and CRC-32 of the manifest; names of shards and columns;
             skipped images
shards       (P, 3) int64, images, size in bytes, and CRC-32 of all bytes besides the columns
columns      (P, C) int64, the place of each column in each shard
ids          uint8, all ids in UTF-8, and id_offsets (M+1,) int64
checksums    (M,) uint32, the CRC-32 of the ids, sorted, and positions (M,) int32, where each is
lengths      (M,) int32; sizes (M, 2) int32
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn._internal.files import atomic_path, require_regular
from coattn.features.store.image_ids import ImageIds
from coattn.features.store.layout import COLUMN_DTYPES, FEATURE_DTYPES, Column, FileContents, Identity, Part, Skipped
from coattn.features.store.manifest import MANIFEST
from coattn.features.store.provenance import check_record, joined_record

INDEX = "index.npz"
_FORMAT, _VERSION = "coattn-index", 1
_BLOCK_BYTES = 8 * 2**20


class Catalog(NamedTuple):
    """Everything about a store except its rows, for P files and M images."""

    parts: list[Part]
    num_images: np.ndarray  # (P,) int64
    image_ids: ImageIds
    lengths: np.ndarray  # (M,) int64
    sizes: np.ndarray  # (M, 2) int32
    record: dict[str, Any]
    skipped: list[Skipped]


def catalog_of(files: Sequence[FileContents]) -> Catalog:
    """The catalog of a store of some files."""
    return Catalog(
        [file.part for file in files],
        np.array([len(file.image_ids) for file in files]),
        ImageIds.joined([file.image_ids for file in files]),
        np.concatenate([np.diff(file.offsets) for file in files]),
        np.concatenate([file.sizes for file in files]),
        joined_record([file.record for file in files]),
        [entry for file in files for entry in file.skipped],
    )


def write_index(folder: Path, catalog: Catalog) -> None:
    """Write the index of a finished folder of shards, atomically. Its bytes depend on the shards alone."""
    features, names = catalog.parts[0].columns["features"], ["features", *COLUMN_DTYPES]
    shards, columns = [], []
    for part, number in zip(catalog.parts, catalog.num_images.tolist(), strict=True):
        shards.append((number, *part.open().identity()))
        columns.append([part.columns[name].offset if name in part.columns else -1 for name in names])
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "extractor": catalog.record,
        "dtype": features.dtype.name,
        "dim": features.shape[1],
        "manifest": _size_and_crc32(folder / MANIFEST),
        "shards": [part.path.name for part in catalog.parts],
        "columns": names,
        "skipped": catalog.skipped,
    }
    with atomic_path(folder / INDEX) as partial, partial.open("wb") as file:
        np.savez(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            shards=np.array(shards, "<i8"),
            columns=np.array(columns, "<i8"),
            ids=np.frombuffer(catalog.image_ids.text, np.uint8),
            id_offsets=catalog.image_ids.offsets.astype("<i8"),
            checksums=catalog.image_ids.table.checksums.astype("<u4"),
            positions=catalog.image_ids.table.positions.astype("<i4"),
            lengths=catalog.lengths.astype("<i4"),
            sizes=catalog.sizes.astype("<i4"),
        )


def read_index(folder: Path) -> Catalog:
    """Read the index of a folder of shards, and check that manifest and shards are those that it was made of.

    The shards are not opened: their sizes are compared here, and their content when they are first read.

    Raises:
        ValueError: the index is damaged, or the folder is incomplete or holds other files.
        OSError: a file cannot be read.
    """
    path = folder / INDEX
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if (about["format"], about["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
            check_record(about["extractor"], "extractor")
            if tuple(about["manifest"]) != _size_and_crc32(folder / MANIFEST):
                raise ValueError(f"it belongs to another {MANIFEST}")
            catalog = _catalog(folder, about, arrays)
    except Exception as error:  # on damaged archives zipfile and numpy raise nearly anything
        raise ValueError(
            f"{path}: not the index of this folder ({error}); delete it to read the shards without it"
        ) from None
    _check_shards(folder, catalog.parts)
    return catalog


def _catalog(folder: Path, about: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Catalog:
    """The catalog that the index describes.

    Raises:
        ValueError, LookupError, TypeError: it contradicts itself.
    """
    num_images, lengths, sizes = arrays["shards"][:, 0], arrays["lengths"].astype(np.int64), arrays["sizes"]
    table = (arrays["checksums"], arrays["positions"])
    ids = ImageIds(arrays["ids"].tobytes(), arrays["id_offsets"], table)
    number, bounds = len(lengths), ids.offsets
    right = (
        {len(ids), *map(len, table), int(num_images.sum())} == {number}
        and sizes.shape == (number, 2)
        and (bounds[0], bounds[-1]) == (0, len(ids.text))
        and min(np.diff(bounds).min(initial=0), lengths.min(initial=0), num_images.min(initial=0)) >= 0
        and 0 <= table[1].min(initial=0) <= table[1].max(initial=0) < max(number, 1)
    )
    if not right:
        raise ValueError("it contradicts itself")
    ends = np.cumsum(num_images)
    before = np.concatenate([[0], np.cumsum(lengths)])  # rows before each image
    rows = before[ends] - before[ends - num_images]
    shards = zip(about["shards"], arrays["columns"], rows.tolist(), arrays["shards"].tolist(), strict=True)
    parts = [Part(folder / name, _columns(about, at, count), Identity(*file[1:])) for name, at, count, file in shards]
    if any(part.columns and part.identity and part.end > part.identity.size for part in parts):
        raise ValueError("its shards have more rows than there is room for")
    return Catalog(parts, num_images, ids, lengths, sizes, about["extractor"], [Skipped(*e) for e in about["skipped"]])


def _columns(about: dict[str, Any], offsets: np.ndarray, count: int) -> dict[str, Column]:
    shapes = {"features": (count, about["dim"]), "boxes": (count, 4)}
    dtypes = {"features": FEATURE_DTYPES[about["dtype"]]} | {n: np.dtype(dtype) for n, dtype in COLUMN_DTYPES.items()}
    return {
        name: Column(offset, dtypes[name], shapes.get(name, (count,)))
        for name, offset in zip(about["columns"], offsets.tolist(), strict=True)
        if offset >= 0
    }


def _check_shards(folder: Path, parts: Sequence[Part]) -> None:
    """Check that all shards are there, in the size of the index."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    missing = [part.path.name for part in parts if part.path.name not in found]
    if missing:
        raise ValueError(
            f"{folder}: incomplete, {len(missing)} of {len(parts)} shards are missing (first: {missing[:1]}); "
            "run the same command again to finish it"
        )
    for part in parts:
        assert part.identity is not None, "the index has it"
        if (size := found[part.path.name]) != part.identity.size:
            raise ValueError(
                f"{part.path}: has {size} bytes, but had {part.identity.size} when the store was finished; it was cut, "
                "or is another file: run the command that made the store again, or copy the store again"
            )


def _size_and_crc32(path: Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum
