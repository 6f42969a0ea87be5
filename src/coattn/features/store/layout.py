"""One HDF5 file of a feature store: how it is laid out, written, and checked.

features  (N, D)  float16 | float32 | int8 with `scale` (N,) float16; contiguous, so that it can be memory-mapped
boxes     (N, 4)  float32, x1 y1 x2 y2 in [0, 1] of the image; zeros where rows are not regions (text tokens)
offsets   (M+1,)  int64, image i owns rows offsets[i]:offsets[i+1]
image_ids (M,)    utf-8 strings
sizes     (M, 2)  int32, width and height of the original image in pixels; zeros for text
labels    (N,)    int32, scores (N,) float32: optional, from detectors
attributes (N,)   int32, attribute_scores (N,) float32: optional, from detectors that have them
skipped   (K,)    optional, JSON [image id, path, reason] of each image that could not be read
attributes        format, version, extractor (JSON), complete; `sources` in shards, of what they were made
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from coattn._internal.files import atomic_path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORMAT = "coattn-features"
VERSION = 1
FEATURE_DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "int8": np.dtype("i1")}
DETECTION_DTYPES = {"labels": "<i4", "scores": "<f4", "attributes": "<i4", "attribute_scores": "<f4"}
COLUMN_DTYPES = {"scale": "<f2", "boxes": "<f4", **DETECTION_DTYPES}


class Skipped(NamedTuple):
    """An image without features, and why."""

    image_id: str
    path: str
    reason: str


class Column(NamedTuple):
    """Where a data set with one entry per row lies in its file."""

    offset: int  # bytes
    dtype: np.dtype
    shape: tuple[int, ...]


# What `write_part` needs of a column: dtype, shape of one row, rows in blocks.
ColumnBlocks = tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]


class Part(NamedTuple):
    """What is known of one file without touching its rows."""

    path: Path
    record: dict[str, Any]
    image_ids: list[str]
    offsets: np.ndarray  # (M+1,) int64
    sizes: np.ndarray  # (M, 2) int32
    skipped: list[Skipped]
    sources: str
    columns: dict[str, Column]

    def map(self, name: str) -> np.ndarray:
        """Memory-map a column, read-only. The map needs no open file and no HDF5, and survives a fork."""
        column = self.columns[name]
        if 0 in column.shape:
            return np.empty(column.shape, column.dtype)
        mapped = np.memmap(self.path, column.dtype, mode="r", offset=column.offset, shape=column.shape)
        return mapped.view(np.ndarray)


def feature_dtype(name: str) -> np.dtype:
    """The type of stored features by its name.

    Raises:
        ValueError: a store does not hold this type.
    """
    if name not in FEATURE_DTYPES:
        raise ValueError(f"dtype {name!r}: a feature store holds {', '.join(FEATURE_DTYPES)}")
    return FEATURE_DTYPES[name]


def write_part(
    path: Path,
    *,
    record: Mapping[str, Any],
    image_ids: Sequence[str],
    lengths: Sequence[int] | np.ndarray,
    sizes: np.ndarray,
    columns: Mapping[str, ColumnBlocks],
    skipped: Sequence[Skipped] = (),
    sources: str = "",
) -> None:
    """Write one file, atomically. The bytes depend on the arguments alone: HDF5 keeps no time stamps here."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype("<i8")
    # Page-aligned columns; rows would otherwise straddle one page more than they must.
    aligned = {"alignment_threshold": 4096, "alignment_interval": 4096}
    with (
        naming_full_disk(path),
        atomic_path(path) as partial,
        h5py.File(partial, "w", locking=False, **aligned) as file,
    ):
        for name, (dtype, row_shape, blocks) in columns.items():
            dataset = file.create_dataset(name, (int(offsets[-1]), *row_shape), dtype)
            start = 0
            for block in blocks:
                dataset[start : start + len(block)] = block
                start += len(block)
            assert start == len(dataset), f"{name}: {start} rows written of {len(dataset)}"
        file["offsets"] = offsets
        file["sizes"] = np.asarray(sizes, "<i4").reshape(len(image_ids), 2)
        file["image_ids"] = _fixed_text(image_ids)
        if skipped:
            file["skipped"] = _fixed_text([json.dumps(entry, ensure_ascii=False) for entry in skipped])
        for name, text in {"format": FORMAT, "extractor": json.dumps(record), "sources": sources}.items():
            file.attrs[name] = _fixed_text([text])[0]
        file.attrs["version"] = VERSION
        file.attrs["complete"] = True


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Give an error of a full disk the name of the file that was to be written; h5py and temporary files have none."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        number = getattr(error, "errno", None) or next((n for n in _FULL if f"errno = {n}," in text), None)
        if number not in _FULL:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """Strings as utf-8 of one length in bytes. HDF5's other kind can send a reader of a damaged file into a loop."""
    data = [text.encode() for text in texts]
    return np.array(data, h5py.string_dtype("utf-8", max(map(len, data), default=0) or 1))


def read_part(path: Path) -> Part:
    """Read and check everything but the rows.

    Raises:
        ValueError: the file is truncated, foreign, or contradicts itself; the message names it and says how.
        OSError: the file cannot be opened at all.
    """
    path.open("rb").close()  # a missing or forbidden file is said so by the system's own error
    try:
        # No lock: files are never changed in place, and read-only and network file systems refuse locks.
        with h5py.File(path, "r", locking=False) as file:
            _check_format(path, file)
            part = Part(
                path=path,
                record=json.loads(_attribute(file, "extractor")),
                image_ids=_dataset(file, "image_ids").asstr()[()].tolist(),
                offsets=_dataset(file, "offsets")[()],
                sizes=_dataset(file, "sizes")[()],
                skipped=_skipped(file),
                sources=_attribute(file, "sources") or "",
                columns={
                    name: Column(file[name].id.get_offset() or 0, file[name].dtype, file[name].shape)
                    for name in ("features", *COLUMN_DTYPES)
                    if name in file
                },
            )
            _check_contiguous(path, [file[name] for name in part.columns])
    except KeyError as error:
        raise ValueError(f"{path}: damaged feature store, a part is missing: {error.args[0]}") from None
    except (OSError, RuntimeError, TypeError, AttributeError, ValueError) as error:  # h5py raises each of them
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(
            f"{path}: not a readable feature store: truncated, damaged, or another kind of file ({error})"
        ) from None
    _check_part(part)
    return part


def _attribute(file: h5py.File, name: str) -> Any:
    """Read a scalar attribute; None if it is not there."""
    if name not in file.attrs:
        return None
    if file.attrs.get_id(name).shape != ():
        raise TypeError(f"attribute {name} is no single value")  # damaged; reading it could take forever
    value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Look up a dataset that is to be read whole: one that damage has not made endless."""
    dataset = file[name]
    if dataset.nbytes > Path(file.filename).stat().st_size:
        raise TypeError(f"{name} claims {dataset.nbytes} bytes, more than the file has")
    return dataset


def _skipped(file: h5py.File) -> list[Skipped]:
    lines = _dataset(file, "skipped").asstr()[()] if "skipped" in file else []
    return [Skipped(*json.loads(line)) for line in lines]


def _check_format(path: Path, file: h5py.File) -> None:
    if _attribute(file, "format") != FORMAT:
        names = ", ".join(sorted(file)) or "nothing"
        raise ValueError(f"{path}: an HDF5 file, but not a feature store of coattn (it holds {names})")
    version = _attribute(file, "version")
    if version != VERSION:
        raise ValueError(f"{path}: feature store of version {version}; this coattn reads version {VERSION}")
    if not _attribute(file, "complete"):
        raise ValueError(f"{path}: incomplete, its writing was broken off; make it again")


def _check_contiguous(path: Path, datasets: Sequence[h5py.Dataset]) -> None:
    for dataset in datasets:
        if dataset.size and (dataset.chunks is not None or dataset.id.get_offset() is None or dataset.external):
            raise ValueError(f"{path}: {dataset.name[1:]} is chunked or compressed; it must be contiguous to be mapped")


def _check_part(part: Part) -> None:
    """Check that shapes, types and offsets agree and that every column lies within the file."""

    def check(right: bool, wrong: str) -> None:
        if not right:
            raise ValueError(f"{part.path}: damaged feature store: {wrong}")

    for name in ("features", "boxes"):
        check(name in part.columns, f"{name} is missing")
    features = part.columns["features"]
    num_rows, num_images = features.shape[0], len(part.image_ids)
    check(len(features.shape) == 2, f"features has shape {features.shape}, not (rows, width)")
    check(features.dtype in FEATURE_DTYPES.values(), f"features is {features.dtype}, not float16, float32 or int8")
    check(("scale" in part.columns) == (features.dtype == np.int8), "int8 features and their scale go together")
    for name, dtype in COLUMN_DTYPES.items():
        if name in part.columns:
            shape = (num_rows, 4) if name == "boxes" else (num_rows,)
            column = part.columns[name]
            check(column.dtype == np.dtype(dtype), f"{name} is {column.dtype}, not {np.dtype(dtype)}")
            check(column.shape == shape, f"{name} has shape {column.shape}, features asks for {shape}")
    offsets = part.offsets
    check(offsets.dtype == np.int64, f"offsets is {offsets.dtype}, not int64")
    check(offsets.shape == (num_images + 1,), f"{num_images} image ids, but offsets has shape {offsets.shape}")
    check(offsets[0] == 0, f"offsets begins at {offsets[0]}, not 0")
    check(offsets[-1] == num_rows, f"offsets ends at {offsets[-1]}, features has {num_rows} rows")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    check(falls.size == 0, f"offsets falls after image {falls[0] if falls.size else ''}")
    check(part.sizes.dtype == np.int32, f"sizes is {part.sizes.dtype}, not int32")
    check(part.sizes.shape == (num_images, 2), f"{num_images} image ids, but sizes has shape {part.sizes.shape}")
    check(isinstance(part.record, dict) and {"name", "settings", "weights"} <= part.record.keys(), "extractor record")
    file_size = part.path.stat().st_size
    for name, column in part.columns.items():
        end = column.offset + int(np.prod(column.shape)) * column.dtype.itemsize
        check(end <= file_size, f"{name} reaches to byte {end}, the file ends at {file_size} (truncated?)")
