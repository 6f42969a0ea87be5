"""Image ids as one block of bytes, found by a sorted table of checksums."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

_COCO_NAME = re.compile(r"(?:.*/)?COCO_\w+_0*(\d+)(?:\.jpg)?")


def coco_number(name: str) -> str | None:
    """The number of an image of COCO by its file name, as VQA's questions use it; None for other names."""
    found = _COCO_NAME.fullmatch(name)
    return None if found is None else found[1]


class _Table(NamedTuple):
    """The CRC-32 of each id (M,) uint32, sorted, and the position of the id (M,) int32."""

    checksums: np.ndarray
    positions: np.ndarray


class ImageIds(Sequence[str]):
    """Ids of images, a sequence of str that takes a fifth of the memory of a list and a dict.

    An id is found by its CRC-32 and then compared in full.

    Args:
        text: the ids in UTF-8, one after another.
        offsets: (M+1,) int64, id i is `text[offsets[i]:offsets[i + 1]]`.
        table: their checksums, sorted, and positions, if they are at hand; otherwise made at the first search.

    Raises:
        ValueError: an id is not UTF-8.
    """

    def __init__(self, text: bytes, offsets: np.ndarray, table: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        self.text, self.offsets = text, offsets
        if not text.isascii():
            text.decode()
            starts = offsets[:-1][np.diff(offsets) > 0]
            if (np.frombuffer(text, np.uint8)[starts] & 0xC0 == 0x80).any():
                raise ValueError("an image id begins in the middle of a character")
        if table is not None:
            self.table = _Table(*table)

    @classmethod
    def of(cls, ids: Iterable[str | bytes]) -> ImageIds:
        """Pack ids."""
        encoded = [name.encode() if isinstance(name, str) else name for name in ids]
        return cls(b"".join(encoded), _offsets([len(name) for name in encoded]))

    @classmethod
    def joined(cls, parts: Sequence[ImageIds]) -> ImageIds:
        """The ids of several sequences, one after another."""
        lengths = [np.diff(part.offsets) for part in parts]
        return cls(b"".join(part.text for part in parts), _offsets(np.concatenate(lengths) if lengths else []))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[position] for position in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"position {place} of {len(self)} image ids")
        return self._bytes(place % len(self)).decode()

    def __iter__(self) -> Iterator[str]:
        return (self._bytes(position).decode() for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ImageIds):
            return self.text == other.text and np.array_equal(self.offsets, other.offsets)
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ImageIds({self[:3]}{', ...' if len(self) > 3 else ''}, {len(self)} in all)"

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) >= 0

    def find(self, name: str) -> int:
        """Position of an id, or -1."""
        key = name.encode(errors="surrogatepass")
        checksum = np.uint32(zlib.crc32(key))
        place = int(self.table.checksums.searchsorted(checksum))
        while place < len(self) and self.table.checksums[place] == checksum:
            if self._bytes(position := int(self.table.positions[place])) == key:
                return position
            place += 1
        return -1

    def find_all(self, names: Sequence[str]) -> np.ndarray:
        """(N,) int64, the position of each id, or -1."""
        found = np.full(len(names), -1)
        if not len(self):
            return found
        keys = [name.encode(errors="surrogatepass") for name in names]
        checksums = np.fromiter(map(zlib.crc32, keys), np.uint32, len(keys))
        places = np.minimum(self.table.checksums.searchsorted(checksums), len(self) - 1)
        likely = np.flatnonzero(self.table.checksums[places] == checksums)
        for number, position in zip(likely.tolist(), self.table.positions[places[likely]].tolist(), strict=True):
            found[number] = position if self._bytes(position) == keys[number] else self.find(names[number])
        return found

    def first_repeated(self) -> str | None:
        """The first id that comes a second time, if there is one."""
        checksums, positions = self.table
        alike = np.flatnonzero(checksums[1:] == checksums[:-1]) + 1
        later = sorted(positions[alike].tolist())
        return next((self[position] for position in later if self.find(self[position]) != position), None)

    def shared(self, other: ImageIds) -> list[str]:
        """The ids that both sequences hold, in the order of this one."""
        alike = np.isin(self.table.checksums, other.table.checksums)
        return [name for position in sorted(self.table.positions[alike].tolist()) if (name := self[position]) in other]

    @cached_property
    def table(self) -> _Table:
        """The sorted checksums. Equal ones are in the order of their positions."""
        text, bounds = self.text, pairwise(self.offsets.tolist())
        checksums = np.fromiter((zlib.crc32(text[start:end]) for start, end in bounds), np.uint32, len(self))
        order = np.argsort(checksums, kind="stable").astype(np.int32)
        return _Table(checksums[order], order)

    def _bytes(self, position: int) -> bytes:
        return self.text[self.offsets[position] : self.offsets[position + 1]]


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
