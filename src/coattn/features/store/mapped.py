"""Read the rows of many images in one call from memory-mapped files, one after another or padded."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn.features.store.layout import FEATURE_DTYPES, Part


class FlatBatch(NamedTuple):
    """The regions of several images, one after another.

    features (sum n, D) as stored, int8 as float32; boxes (sum n, 4) float32, zeros if unknown; sizes (B, 2) int32;
    lengths (B,) int64.
    """

    features: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray


class PaddedBatch(NamedTuple):
    """The regions of B images, padded with zeros to R, the most regions of one of them (at least 1).

    features (B, R, D) as stored, int8 as float32; boxes (B, R, 4) float32, zeros if unknown; sizes (B, 2) int32;
    lengths (B,) int64.
    """

    features: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray


class MappedStore:
    """The images of some files, numbered 0 ... M-1.

    Each process maps a file when it first reads it, so that a store may be pickled, forked and shared by threads. The
    features of an image are checked for finite values when they are first read.

    Attributes:
        path: name of the store in messages.
        parts: the files.
        dim: width D of a feature row.
        dtype: how features are stored, "float16", "float32" or "int8"; "float32" if the files differ.
        has_boxes: whether boxes are known. If not, they read as zeros, and what needs boxes must refuse the store.
        lengths: (M,) int64, number of regions of each image.
        sizes: (M, 2) int32, width and height of each original image in pixels; 0 0 where unknown.
    """

    def __init__(self, path: Path | str, parts: Sequence[Part]) -> None:
        self.path = path
        self.parts = list(parts)
        self.has_boxes = all("boxes" in part.columns for part in parts)
        columns = [part.columns["features"] for part in parts]
        self.dim = columns[0].shape[1]
        dtypes = {column.dtype.name for column in columns}
        self._alike = len(dtypes) == 1
        self.dtype = dtypes.pop() if self._alike else "float32"
        self._word = np.uint64 if self.dim * self.stored_dtype.itemsize % 8 == 0 else np.uint8  # unit of copying
        self.lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        self.sizes = np.concatenate([part.sizes for part in parts])
        self._part_of = np.repeat(np.arange(len(parts)), [len(part.image_ids) for part in parts])
        self._first_row = np.concatenate([part.offsets[:-1] for part in parts])
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])  # of each image among the rows of all files
        self._unchecked = np.ones(len(self.lengths), bool)  # images whose features were not yet seen to be finite
        self._files: dict[int, mmap.mmap | None] = {}
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        self._word_maps: dict[int, np.ndarray] = {}
        self._columns: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_maps": {}, "_word_maps": {}, "_columns": {}}

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def read_dtype(self) -> np.dtype:
        """The type of features when read: as stored, int8 as float32."""
        return FEATURE_DTYPES["float32" if self.dtype == "int8" else self.dtype]

    @property
    def stored_dtype(self) -> np.dtype:
        """The type of features in memory: as stored, float32 if the files differ."""
        return FEATURE_DTYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory, with its scale."""
        return self.dim * self.stored_dtype.itemsize + (2 if self.dtype == "int8" else 0)

    def read_flat(self, positions: np.ndarray, *, out: np.ndarray | None = None) -> FlatBatch:
        """Read several images by position, in the order asked.

        Args:
            positions: (B,) integers; repeats are allowed.
            out: buffer for the features, (at least sum n, D) of `read_dtype`. A reused buffer is twice as fast as
                fresh memory.

        Raises:
            ValueError: features that are NaN or infinite, or a file that was truncated while it was in use.
        """
        positions = np.asarray(positions, np.int64)
        lengths = self.lengths[positions]
        total = int(lengths.sum())
        features = np.empty((total, self.dim), self.read_dtype) if out is None else out[:total]
        self.copy_rows(positions, features, np.cumsum(lengths) - lengths)
        return FlatBatch(features, self.column("boxes")[self.rows(positions)], self.sizes[positions], lengths)

    def read_padded(self, positions: np.ndarray, *, out: np.ndarray | None = None) -> PaddedBatch:
        """Read several images by position, in the order asked. Each row is copied once, to its final place.

        Args:
            positions: (B,) integers; repeats are allowed.
            out: buffer for the features, contiguous, of `read_dtype` and at least B * R * D large; the returned
                features are a view of it. A reused buffer is twice as fast as fresh memory.

        Raises:
            ValueError: as `read_flat`.
        """
        positions = np.asarray(positions, np.int64)
        lengths, rows = self.padded_rows(positions)
        shape = (*rows.shape, self.dim)
        buffer = np.empty(shape, self.read_dtype) if out is None else out.reshape(-1)[: math.prod(shape)]
        features = buffer.reshape(shape)
        self.copy_padded(positions, features)
        return PaddedBatch(features, self.column("boxes").take(rows, axis=0), self.sizes[positions], lengths)

    def copy_padded(self, positions: np.ndarray, features: np.ndarray) -> None:
        """Fill contiguous `features` (B, R, D), of `read_dtype`, with the features of images and zeros as padding."""
        lengths = self.lengths[positions]
        most = features.shape[1]
        self.copy_rows(positions, features.reshape(-1, self.dim), np.arange(len(positions)) * most)
        for place in np.flatnonzero(lengths < most).tolist():
            features[place, lengths[place] :] = 0

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers of some images in a `column`, one image after another."""
        lengths = self.lengths[positions]
        before = np.cumsum(lengths) - lengths
        return np.repeat(self._starts[positions] - before, lengths) + np.arange(lengths.sum())

    def padded_rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lengths (B,) of some images, and their row numbers (B, R) in a `column`; padding has its last row."""
        lengths = self.lengths[positions]
        places = np.arange(max(int(lengths.max(initial=0)), 1))
        rows = self._starts[positions][:, None] + places
        return lengths, np.where(places < lengths[:, None], rows, self._starts[-1])

    def column(self, name: str) -> np.ndarray:
        """A column of all files besides features, with a row of zeros at the end: (sum of lengths + 1, ...).

        Unknown boxes are zeros. The column is read whole: it is small compared with the features, and on a disk each
        image would cost one more seek.
        """
        if name == "boxes" and not self.has_boxes:
            return np.broadcast_to(np.float32(0), (int(self._starts[-1]) + 1, 4))
        if name not in self._columns:
            columns = [self._map(part, name) for part in range(len(self.parts))]
            self._columns[name] = np.concatenate([*columns, np.zeros((1, *columns[0].shape[1:]), columns[0].dtype)])
        return self._columns[name]

    def copy_rows(self, positions: np.ndarray, features: np.ndarray, starts: np.ndarray) -> None:
        """Copy the features of images to rows of `features` (any, D) that begin at `starts`.

        `features` is contiguous and of `read_dtype`; or of `stored_dtype`, and int8 is then copied as it is.
        """
        parts = self._part_of[positions]
        columns = (starts, parts, self._first_row[positions], self.lengths[positions])
        places = list(zip(*(column.tolist() for column in columns), strict=True))
        for part in np.unique(parts).tolist():
            self.parts[part].check_whole(self._file(part))
        self._copy(places, features)
        for index in np.flatnonzero(self._unchecked[positions]).tolist():
            start, part, first, length = places[index]
            rows = features[start : start + length]
            if rows.dtype == np.int8:
                rows = self._map(part, "scale")[first : first + length]
            if not all_finite(rows):
                raise ValueError(
                    f"{self.parts[part].path}: image {self.image_id(int(positions[index]))!r} has features that are "
                    "NaN or infinite; make its features again (`coattn inspect` lists all such images)"
                )
            self._unchecked[positions[index]] = False

    def image_id(self, position: int) -> str:
        """The id of an image by position."""
        part = int(self._part_of[position])
        return self.parts[part].image_ids[position - int(np.searchsorted(self._part_of, part))]

    def _copy(self, places: Sequence[tuple[int, int, int, int]], features: np.ndarray) -> None:
        """Copy rows, given for each image as (first row in `features`, file, first row in the file, number)."""
        if not self._alike or features.dtype != self.stored_dtype:
            for start, part, first, length in places:
                self._convert(part, slice(first, first + length), features[start : start + length])
            return
        words = features.view(self._word)
        for start, part, first, length in places:
            # An assignment would be memmove, which reads mapped pages at half the speed of this plain loop.
            np.positive(self._words(part)[first : first + length], words[start : start + length])

    def _convert(self, part: int, rows: slice, target: np.ndarray) -> None:
        stored = self._map(part, "features")[rows]
        if stored.dtype == np.int8:
            np.multiply(stored, self._map(part, "scale")[rows, None].astype(np.float32), out=target)
        else:
            target[:] = stored

    def expect(self, positions: np.ndarray) -> None:
        """Ask the system to read images from the disk ahead, all at once. Images in its cache gain nothing.

        This is twice as fast as reading page by page during the copy, and as `preadv` image by image. Once a file is in
        the cache, copying from the map is in turn twice as fast as `preadv`.
        """
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        for part in np.unique(self._part_of[positions]).tolist():
            column = self.parts[part].columns["features"]
            row_bytes = column.dtype.itemsize * self.dim
            inside = positions[self._part_of[positions] == part]
            with self.parts[part].path.open("rb", buffering=0) as file:
                for first, length in zip(self._first_row[inside].tolist(), self.lengths[inside].tolist(), strict=True):
                    start = column.offset + first * row_bytes
                    os.posix_fadvise(file.fileno(), start, length * row_bytes, os.POSIX_FADV_WILLNEED)

    def unmap(self) -> None:
        """Drop the maps, so that pages read through them no longer count as memory of this process.

        Files are mapped again when they are read again.
        """
        self._files.clear()
        self._maps.clear()
        self._word_maps.clear()

    def statistics(self, positions: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the feature rows, (D,) float32 each, over all images or those at `positions`.

        Summed in float64, block by block (Chan, Golub & LeVeque 1983), in one pass and little memory.

        Raises:
            ValueError: there is no row to average.
        """
        positions = np.arange(len(self)) if positions is None else np.asarray(positions)
        count, mean, squares = 0, np.zeros(self.dim), np.zeros(self.dim)
        for start in range(0, len(positions), 64):
            block = self.read_flat(positions[start : start + 64]).features.astype(np.float64)
            if len(block):
                block_mean = block.mean(axis=0)
                shift, total = block_mean - mean, count + len(block)
                squares += np.square(block - block_mean).sum(axis=0) + shift**2 * (count * len(block) / total)
                mean += shift * (len(block) / total)
                count = total
        if count == 0:
            raise ValueError(f"{self.path}: no feature rows in {len(positions)} images to take statistics of")
        return mean.astype(np.float32), np.sqrt(squares / count).astype(np.float32)

    def _map(self, part: int, name: str) -> np.ndarray:
        found = self._maps.get((part, name))
        if found is None:
            found = self._maps[part, name] = self.parts[part].column(self._file(part), name)
        return found

    def _file(self, part: int) -> mmap.mmap | None:
        if part not in self._files:
            self._files[part] = self.parts[part].open_map()
        return self._files[part]

    def _words(self, part: int) -> np.ndarray:
        found = self._word_maps.get(part)
        if found is None:
            found = self._word_maps[part] = self._map(part, "features").view(self._word)
        return found


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    if values.dtype == np.float16:  # by the bits: all of the exponent's are set in NaN and infinity
        return bool((np.ascontiguousarray(values).view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)
    return bool(np.isfinite(values).all())
