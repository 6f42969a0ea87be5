"""Open and check one HDF5 file of a feature store, without reading its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from coattn._internal.files import require_regular
from coattn._internal.hints import listed
from coattn._internal.kinds import kind_of
from coattn.features.store.image_ids import ImageIds
from coattn.features.store.layout import (
    COLUMN_DTYPES,
    FEATURE_DTYPES,
    FORMAT,
    VERSION,
    Column,
    FileContents,
    Part,
    Skipped,
)
from coattn.features.store.provenance import check_record


def read_part(path: Path) -> FileContents:
    """Read and check everything but the rows.

    Raises:
        ValueError: the file is truncated, foreign, or contradicts itself; the message names it and says how.
        OSError: the file cannot be opened at all.
    """
    require_regular(path)
    try:
        # No lock: files are never changed in place, and read-only and network file systems refuse locks.
        with h5py.File(path, "r", locking=False) as file:
            _check_links(path, file)
            _check_format(path, file)
            columns = {
                name: Column(file[name].id.get_offset() or 0, file[name].dtype, file[name].shape)
                for name in ("features", *COLUMN_DTYPES)
                if name in file
            }
            contents = FileContents(
                part=Part(path, columns),
                record=json.loads(_attribute(file, "extractor")),
                image_ids=_image_ids(file),
                offsets=_dataset(file, "offsets")[()],
                sizes=_dataset(file, "sizes")[()],
                skipped=_skipped(file),
                sources=_attribute(file, "sources") or "",
                checksums=_checksums(file),
            )
            _check_contiguous(path, [file[name] for name in columns])
    except KeyError as error:
        raise ValueError(f"{path}: damaged feature store, a part is missing: {error.args[0]}") from None
    except Exception as error:  # on damaged files h5py and json raise nearly anything
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        if (kind := kind_of(path)) not in ("an HDF5 file", "another kind of file"):
            raise ValueError(f"{path}: is {kind}, not a feature store; give what `coattn extract` wrote") from None
        raise ValueError(
            f"{path}: not a readable feature store: truncated, damaged, or another kind of file ({error})"
        ) from None
    _check(contents)
    return contents


def _attribute(file: h5py.File, name: str) -> Any:
    """Read a scalar attribute; None if it is not there."""
    if name not in file.attrs:
        return None
    if file.attrs.get_id(name).shape != ():
        raise TypeError(f"attribute {name} is no single value")  # damaged; reading it could take forever
    value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Look up a data set that is read whole. Damage must not make it endless, or lead to another file."""
    dataset = file[name]
    if dataset.external or dataset.is_virtual:
        raise TypeError(f"{name} lies in another file")
    if dataset.nbytes > Path(file.filename).stat().st_size:
        raise TypeError(f"{name} claims {dataset.nbytes} bytes, more than the file has")
    return dataset


def _image_ids(file: h5py.File) -> ImageIds:
    dataset = _dataset(file, "image_ids")
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
        raise TypeError(f"image_ids is a data set of {dataset.dtype}, shape {dataset.shape}")
    return ImageIds.of(dataset[()].tolist())


def _skipped(file: h5py.File) -> list[Skipped]:
    lines = _dataset(file, "skipped").asstr()[()] if "skipped" in file else []
    return [Skipped(*json.loads(line)) for line in lines]


def _checksums(file: h5py.File) -> dict[str, int]:
    """The checksums that a file keeps, by data set; none in files of earlier versions."""
    if "crc32" not in file:
        return {}
    names = json.loads(_attribute(file, "crc32_of"))
    values = _dataset(file, "crc32")[()].tolist()
    if not isinstance(names, list) or not {"features", "offsets", "sizes", *COLUMN_DTYPES}.issuperset(names):
        raise TypeError("crc32_of names other data sets than it may")
    if missing := [name for name in names if name not in file]:
        raise KeyError(missing[0])
    return dict(zip(names, values, strict=True))


def _check_links(path: Path, file: h5py.File) -> None:
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: {name} is a link to another place or file, which is not followed")


def _check_format(path: Path, file: h5py.File) -> None:
    if _attribute(file, "format") != FORMAT:
        raise ValueError(
            f"{path}: an HDF5 file, but not a feature store of coattn (it holds {listed(sorted(file))}); `coattn "
            "convert` reads those of other projects"
        )
    version = _attribute(file, "version")
    if version != VERSION:
        raise ValueError(f"{path}: feature store of version {version}; this coattn reads version {VERSION}")
    if not _attribute(file, "complete"):
        raise ValueError(f"{path}: incomplete, writing it was interrupted; make it again")


def _check_contiguous(path: Path, datasets: Sequence[h5py.Dataset]) -> None:
    for dataset in datasets:
        if dataset.size and (dataset.chunks is not None or dataset.id.get_offset() is None or dataset.external):
            raise ValueError(f"{path}: {dataset.name[1:]} is chunked or compressed; it must be contiguous to be mapped")


def _check(contents: FileContents) -> None:
    """Check that shapes, types and offsets agree and that every column lies within the file."""
    path, columns = contents.part.path, contents.part.columns

    def check(right: bool, wrong: str) -> None:
        if not right:
            raise ValueError(f"{path}: damaged feature store: {wrong}")

    check("features" in columns, "features is missing")
    features = columns["features"]
    num_rows, num_images = features.shape[0], len(contents.image_ids)
    check(len(features.shape) == 2, f"features has shape {features.shape}, not (rows, width)")
    check(features.dtype in FEATURE_DTYPES.values(), f"features is {features.dtype}, not float16, float32 or int8")
    check(("scale" in columns) == (features.dtype == np.int8), "int8 features and their scale go together")
    for name, dtype in COLUMN_DTYPES.items():
        if name in columns:
            shape = (num_rows, 4) if name == "boxes" else (num_rows,)
            column = columns[name]
            check(column.dtype == np.dtype(dtype), f"{name} is {column.dtype}, not {np.dtype(dtype)}")
            check(column.shape == shape, f"{name} has shape {column.shape}, features asks for {shape}")
    offsets = contents.offsets
    check(offsets.dtype == np.int64, f"offsets is {offsets.dtype}, not int64")
    check(offsets.shape == (num_images + 1,), f"{num_images} image ids, but offsets has shape {offsets.shape}")
    check(offsets[0] == 0, f"offsets begins at {offsets[0]}, not 0")
    check(offsets[-1] == num_rows, f"offsets ends at {offsets[-1]}, features has {num_rows} rows")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    check(falls.size == 0, f"offsets falls after image {falls[0] if falls.size else ''}")
    check(contents.sizes.dtype == np.int32, f"sizes is {contents.sizes.dtype}, not int32")
    check(
        contents.sizes.shape == (num_images, 2), f"{num_images} image ids, but sizes has shape {contents.sizes.shape}"
    )
    check_record(contents.record, f"{path}: damaged feature store")
    file_size = path.stat().st_size
    for name, column in columns.items():
        check(
            column.end <= file_size, f"{name} reaches to byte {column.end}, the file ends at {file_size} (truncated?)"
        )
