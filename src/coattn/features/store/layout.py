"""One HDF5 file of a feature store: how it is laid out, written, and checked.

features  (N, D)  float16 | float32 | int8 with `scale` (N,) float16; contiguous, so that it can be memory-mapped
boxes     (N, 4)  float32, x1 y1 x2 y2 in [0, 1] of the image. Absent where boxes are unknown or do not exist: features
                  of other projects without boxes, text tokens. They are never guessed.
offsets   (M+1,)  int64, image i owns rows offsets[i]:offsets[i+1]
image_ids (M,)    utf-8 strings
sizes     (M, 2)  int32, width and height of the original image in pixels; 0 0 where they are unknown, and for text
labels    (N,)    int32, scores (N,) float32: optional, from detectors
attributes (N,)   int32, attribute_scores (N,) float32: optional, from detectors that have them
skipped   (K,)    optional, JSON [image id, path, reason] of each image that could not be read
crc32     (C,)    uint32, checksums of the data sets that the attribute `crc32_of` lists (absent in older files)
attributes        format, version, extractor (JSON), complete, crc32_of (JSON); in shards `sources`, a fingerprint of
                  the files that the features were made from
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = "coattn-features"
VERSION = 1
FEATURE_DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "int8": np.dtype("i1")}
DETECTION_DTYPES = {"labels": "<i4", "scores": "<f4", "attributes": "<i4", "attribute_scores": "<f4"}
COLUMN_DTYPES = {"scale": "<f2", "boxes": "<f4", **DETECTION_DTYPES}
_BLOCK_BYTES = 8 * 2**20


class Skipped(NamedTuple):
    """An image without features, and the reason."""

    image_id: str
    path: str
    reason: str


class Column(NamedTuple):
    """Position of a data set with one entry per row in its file."""

    offset: int  # bytes
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.offset + int(np.prod(self.shape)) * self.dtype.itemsize


# Input of `write_part` for a column: dtype, shape of one row, and the rows in blocks.
ColumnBlocks = tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]


class Part(NamedTuple):
    """Everything about one file except its rows."""

    path: Path
    record: dict[str, Any]
    image_ids: list[str]
    offsets: np.ndarray  # (M+1,) int64
    sizes: np.ndarray  # (M, 2) int32
    skipped: list[Skipped]
    sources: str
    columns: dict[str, Column]
    checksums: dict[str, int]

    @property
    def end(self) -> int:
        """The byte behind the last row of any column: the file is not shorter."""
        return max(column.end for column in self.columns.values())

    def open_map(self) -> mmap.mmap | None:
        """Memory-map the file, read-only; None if it holds no rows. The map survives a fork, and needs no HDF5."""
        if not any(map(_has_rows, self.columns.values())):
            return None
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.check_whole(mapped)
        return mapped

    def check_whole(self, mapped: mmap.mmap | None) -> None:
        """Refuse a file that became shorter: reading behind its end would end the process.

        Raises:
            ValueError: it was truncated since it was opened.
        """
        if mapped is not None and mapped.size() < self.end:
            raise ValueError(
                f"{self.path}: was truncated to {mapped.size()} bytes while it was in use, its rows reach to byte "
                f"{self.end}; make the file again"
            )

    def column(self, mapped: mmap.mmap | None, name: str) -> np.ndarray:
        """View a column of the mapped file."""
        column = self.columns[name]
        if mapped is None or not _has_rows(column):
            return np.empty(column.shape, column.dtype)
        return np.frombuffer(mapped, column.dtype, int(np.prod(column.shape)), column.offset).reshape(column.shape)

    def map(self, name: str) -> np.ndarray:
        """Memory-map one column, read-only."""
        return self.column(self.open_map(), name)

    def verify(self) -> list[str]:
        """Names of the data sets whose content differs from its checksum."""
        mapped = self.open_map()
        contents = {
            "offsets": self.offsets,
            "sizes": self.sizes,
            **{name: self.column(mapped, name) for name in self.columns},
        }
        return [name for name, checksum in self.checksums.items() if _crc32(contents[name]) != checksum]


def _has_rows(column: Column) -> bool:
    return 0 not in column.shape


def _crc32(rows: np.ndarray) -> int:
    """Checksum of an array's bytes, read in blocks."""
    checksum, content = 0, np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    for start in range(0, len(content), _BLOCK_BYTES):
        checksum = zlib.crc32(content[start : start + _BLOCK_BYTES].data, checksum)
    return checksum


def feature_dtype(name: str) -> np.dtype:
    """The type of stored features by its name.

    Raises:
        ValueError: a store does not hold this type.
    """
    if name not in FEATURE_DTYPES:
        raise ValueError(f"dtype {name!r}: a feature store holds {', '.join(FEATURE_DTYPES)}")
    return FEATURE_DTYPES[name]
