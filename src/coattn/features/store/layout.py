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

import math
import mmap
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn.features.store.image_ids import ImageIds

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
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def word(self) -> type[np.generic]:
        """The unit in which rows are copied fastest."""
        return np.uint64 if self.row_bytes % 8 == 0 else np.uint8


# Input of `write_part` for a column: dtype, shape of one row, and the rows in blocks.
ColumnBlocks = tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]


class Identity(NamedTuple):
    """How a file is recognized without HDF5: its size, and the checksum of all its bytes besides its columns.

    These are HDF5's headers, the ids, and the checksums of the columns, so that a file with other features differs too.
    """

    size: int
    crc32: int


class Part(NamedTuple):
    """Where the rows of one file are."""

    path: Path
    columns: dict[str, Column]
    identity: Identity | None = None  # None: the file was read when the store was opened

    @property
    def end(self) -> int:
        """The byte behind the last row of any column: the file is not shorter."""
        return max(column.end for column in self.columns.values())

    def open(self) -> OpenPart:
        """Memory-map the file, read-only. The map survives a fork, and needs no HDF5.

        Raises:
            ValueError: the file is shorter than its columns, or another one than its `identity` says.
            OSError: it cannot be opened.
        """
        if not any(map(_has_rows, self.columns.values())):
            return OpenPart(self, None)
        with self.path.open("rb") as file:
            opened = OpenPart(self, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if self.identity is not None and opened.identity() != self.identity:
            raise ValueError(
                f"{self.path}: is not the file that was here when the store was finished; run the command that made "
                "the store again, or copy the store again"
            )
        return opened


class OpenPart:
    """A memory-mapped file: its columns as arrays, which read it when they are read.

    Attributes:
        columns: the arrays by name.
        words: the features in units of copying, row by row.
    """

    def __init__(self, part: Part, mapped: mmap.mmap | None) -> None:
        self.part, self._mapped = part, mapped
        self.check_whole()
        self.columns = {name: self._view(column) for name, column in part.columns.items()}
        self.words = self.columns["features"].view(part.columns["features"].word)

    def _view(self, column: Column) -> np.ndarray:
        if self._mapped is None or not _has_rows(column):
            return np.empty(column.shape, column.dtype)
        count = int(np.prod(column.shape))
        return np.frombuffer(self._mapped, column.dtype, count, column.offset).reshape(column.shape)

    def check_whole(self) -> None:
        """Refuse a file that became shorter: reading behind its end would end the process.

        Raises:
            ValueError: it was truncated since it was opened.
        """
        if self._mapped is not None and self._mapped.size() < self.part.end:
            raise ValueError(
                f"{self.part.path}: was truncated to {self._mapped.size()} bytes while it was in use, its rows reach "
                f"to byte {self.part.end}; make the file again"
            )

    def identity(self) -> Identity:
        """The identity of the file as it is; of one without rows only its size."""
        if self._mapped is None:
            return Identity(self.part.path.stat().st_size, 0)
        ends = sorted((column.offset, column.end) for column in self.part.columns.values() if _has_rows(column))
        checksum = 0
        for start, end in zip([0, *(end for _, end in ends)], [*(start for start, _ in ends), None], strict=True):
            checksum = zlib.crc32(self._mapped[start:end], checksum)
        return Identity(self._mapped.size(), checksum)


def _has_rows(column: Column) -> bool:
    return 0 not in column.shape


class FileContents(NamedTuple):
    """Everything about one file except its rows."""

    part: Part
    record: dict[str, Any]
    image_ids: ImageIds
    offsets: np.ndarray  # (M+1,) int64
    sizes: np.ndarray  # (M, 2) int32
    skipped: list[Skipped]
    sources: str
    checksums: dict[str, int]

    def damaged(self) -> list[str]:
        """Names of the data sets whose content differs from its checksum."""
        contents = {"offsets": self.offsets, "sizes": self.sizes, **self.part.open().columns}
        return [name for name, checksum in self.checksums.items() if _crc32(contents[name]) != checksum]


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
