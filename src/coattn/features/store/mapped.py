"""Read the rows of many images in one call from memory-mapped files, one after another or padded."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn.features.store.layout import FEATURE_DTYPES, OpenPart, Part

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

_MOST_MAPS = 60_000  # Linux allows 65,530 maps in a process


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
    features of an image are checked for finite values when they are first read. Python keeps a file handle for each
    map, so that each store uses at most half of the handles that a process may have; the pages belong to the system,
    which drops them when memory is short.

    Attributes:
        path: name of the store in messages.
        parts: the files, P in number.
        num_images: (P,) int64, the number of images in each file.
        dim: width D of a feature row.
        dtype: how features are stored, "float16", "float32" or "int8"; "float32" if the files differ.
        has_boxes: whether boxes are known. If not, they read as zeros, and what needs boxes must refuse the store.
        lengths: (M,) int64, number of regions of each image.
        sizes: (M, 2) int32, width and height of each original image in pixels; 0 0 where unknown.
    """

    def __init__(
        self, path: Path | str, parts: Sequence[Part], num_images: np.ndarray, lengths: np.ndarray, sizes: np.ndarray
    ) -> None:
        self.path = path
        self.parts = list(parts)
        self.has_boxes = all("boxes" in part.columns for part in parts)
        columns = [part.columns["features"] for part in parts]
        self.dim = columns[0].shape[1]
        dtypes = {column.dtype.name for column in columns}
        self._alike = len(dtypes) == 1
        self.dtype = dtypes.pop() if self._alike else "float32"
        self.num_images, self.lengths, self.sizes = num_images, lengths, sizes
        self._starts = np.concatenate([[0], np.cumsum(lengths)])  # of each image among the rows of all files
        self._first_image = np.cumsum(num_images) - num_images  # of each file
        self._unchecked = np.ones(len(lengths), bool)  # images whose features were not yet seen to be finite
        self._open: dict[int, OpenPart] = {}
        self._most_open = _file_handles() // 2

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

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
        starts = np.cumsum(lengths) - lengths
        self.copy_rows(positions, features, starts)
        boxes = np.zeros((total, 4), np.float32)
        if self.has_boxes:
            self.copy_column("boxes", positions, boxes, starts)
        return FlatBatch(features, boxes, self.sizes[positions], lengths)

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
        lengths = self.lengths[positions]
        shape = (len(positions), max(int(lengths.max(initial=0)), 1), self.dim)
        buffer = np.empty(shape, self.read_dtype) if out is None else out.reshape(-1)[: math.prod(shape)]
        features = buffer.reshape(shape)
        self.copy_padded(positions, features)
        return PaddedBatch(features, self.padded_boxes(positions), self.sizes[positions], lengths)

    def copy_padded(self, positions: np.ndarray, features: np.ndarray) -> None:
        """Fill contiguous `features` (B, R, D), of `read_dtype`, with the features of images and zeros as padding."""
        lengths = self.lengths[positions]
        most = features.shape[1]
        self.copy_rows(positions, features.reshape(-1, self.dim), np.arange(len(positions)) * most)
        for place in np.flatnonzero(lengths < most).tolist():
            features[place, lengths[place] :] = 0

    def padded_boxes(self, positions: np.ndarray) -> np.ndarray:
        """Boxes (B, R, 4) of some images, float32; zeros at padding, and where boxes are unknown."""
        most = max(int(self.lengths[positions].max(initial=0)), 1)
        boxes = np.zeros((len(positions), most, 4), np.float32)
        if self.has_boxes:
            self.copy_column("boxes", positions, boxes.reshape(-1, 4), np.arange(len(positions)) * most)
        return boxes

    def copy_column(self, name: str, positions: np.ndarray, out: np.ndarray, starts: np.ndarray) -> None:
        """Copy a column besides features to rows of `out` (any, ...) that begin at `starts`, one for each image."""
        places = self._places(positions, starts)
        self._check_whole(places)
        for start, number, first, length in places:
            out[start : start + length] = self._opened(number).columns[name][first : first + length]

    def _places(self, positions: np.ndarray, starts: np.ndarray) -> list[tuple[int, int, int, int]]:
        """For each image: its first row in a target, the number of its file, its first row there, and its length."""
        numbers = self.part_numbers(positions)
        first = self._starts[positions] - self._starts[self._first_image[numbers]]
        return list(zip(*(c.tolist() for c in (starts, numbers, first, self.lengths[positions])), strict=True))

    def _check_whole(self, places: Sequence[tuple[int, int, int, int]]) -> None:
        """Refuse files that were cut off since they were mapped: reading past their end ends the process."""
        for number in {number for _, number, _, _ in places}:
            self._opened(number).check_whole()

    def part_numbers(self, positions: np.ndarray) -> np.ndarray:
        """(N,) the number, in `parts`, of the file that holds each image."""
        return self._first_image.searchsorted(positions, "right") - 1

    def copy_rows(self, positions: np.ndarray, features: np.ndarray, starts: np.ndarray) -> None:
        """Copy the features of images to rows of `features` (any, D) that begin at `starts`.

        `features` is contiguous and of `read_dtype`; or of `stored_dtype`, and int8 is then copied as it is.
        """
        places = self._places(positions, starts)
        self._check_whole(places)
        self._copy(places, features)
        for index in np.flatnonzero(self._unchecked[positions]).tolist():
            start, number, first, length = places[index]
            rows = features[start : start + length]
            if rows.dtype == np.int8:
                rows = self._opened(number).columns["scale"][first : first + length]
            if not all_finite(rows):
                raise ValueError(
                    f"{self.parts[number].path}: image {self.image_id(int(positions[index]))!r} has features that are "
                    "NaN or infinite; make its features again (`coattn inspect` lists all such images)"
                )
            self._unchecked[positions[index]] = False

    def image_id(self, position: int) -> str:
        """The id of an image by position."""
        raise NotImplementedError

    def _copy(self, places: Sequence[tuple[int, int, int, int]], features: np.ndarray) -> None:
        """Copy rows, given for each image as in `_places`."""
        if not self._alike or features.dtype != self.stored_dtype:
            for start, number, first, length in places:
                self._convert(self._opened(number), slice(first, first + length), features[start : start + length])
            return
        words = features.view(self.parts[0].columns["features"].word)
        for start, number, first, length in places:
            # An assignment would be memmove, which reads mapped pages at half the speed of this plain loop.
            np.positive(self._opened(number).words[first : first + length], words[start : start + length])

    def _convert(self, part: OpenPart, rows: slice, target: np.ndarray) -> None:
        stored = part.columns["features"][rows]
        if stored.dtype == np.int8:
            np.multiply(stored, part.columns["scale"][rows, None].astype(np.float32), out=target)
        else:
            target[:] = stored

    def expect(self, positions: np.ndarray) -> None:
        """Ask the system to read images from the disk ahead, all at once. Images in its cache gain nothing.

        This is twice as fast as reading page by page during the copy, and as `preadv` image by image. Once a file is in
        the cache, copying from the map is in turn twice as fast as `preadv`.
        """
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        numbers = self.part_numbers(positions)
        for number in np.unique(numbers).tolist():
            inside, part = positions[numbers == number], self.parts[number]
            first = self._starts[inside] - self._starts[self._first_image[number]]
            with part.path.open("rb", buffering=0) as file:
                for column in part.columns.values():
                    starts, sizes = column.offset + first * column.row_bytes, self.lengths[inside] * column.row_bytes
                    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                        os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)

    def unmap(self) -> None:
        """Drop the maps, so that pages read through them no longer count as memory of this process.

        Files are mapped again when they are read again.
        """
        self._open.clear()

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

    def _opened(self, number: int) -> OpenPart:
        """The map of a file; the oldest one is dropped where there would be too many."""
        found = self._open.get(number)
        if found is None:
            # `list` copies the keys at once, while other threads may add files.
            for oldest in list(self._open)[: max(0, len(self._open) + 1 - self._most_open)]:
                self._open.pop(oldest, None)
            found = self._open[number] = self.parts[number].open()
        return found


def _file_handles() -> int:
    """The number of files that this process may have open; 512 on Windows, whose C library has that limit."""
    if resource is None:
        return 512
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_MAPS)


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    if values.dtype == np.float16:  # by the bits: all of the exponent's are set in NaN and infinity
        return bool((np.ascontiguousarray(values).view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)
    return bool(np.isfinite(values).all())
