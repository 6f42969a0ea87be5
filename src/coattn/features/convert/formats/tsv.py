"""Bottom-up TSV files: one image a line, arrays in base64.

Checked on real lines in LXMERT's order (airsplay/py-bottom-up-attention, demo); the older order and a header line are
taken from peteanderson80/bottom-up-attention's README and openvqa's and DCN's readers.
"""

from __future__ import annotations

import binascii
import hashlib
import mmap
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from coattn._internal.progress import progress as show_progress
from coattn.features.convert.formats.base import FileSource, ImageRegions, SourceImage, number

OLDER = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
# Without a header the order is known by the number of columns.
_ORDERS = {len(order): order for order in (OLDER, LXMERT)}
_ONE_NAME = {"img_id": "image_id", "img_w": "image_w", "img_h": "image_h"}
_HEADS = (b"image_id", b"img_id")
_FIRST_LINES, _LONGEST_NAME = 10, 256


class BottomUpTsv(FileSource):
    """The columns of Anderson et al. (2018, arXiv 1707.07998), or of LXMERT (height before width), found by themselves.

    `objects_id` and `objects_conf` become labels and scores, `attrs_id` and `attrs_conf` attributes and their scores.
    A damaged line does not hinder the others.

    Raises:
        ValueError: not such a file; the message says what its first line is.
        OSError: it cannot be read.
    """

    extractor = "bottom-up"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        with path.open("rb") as file:
            self._columns = _columns(path, list(islice(file, _FIRST_LINES)))
            # Mapped: each byte is looked at where the system has it, and copied nowhere but by the decoder.
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.entries, sha256 = self._index(path, progress=progress)
        super().__init__(path, sha256=sha256)

    def _index(self, path: Path, *, progress: bool) -> tuple[list[SourceImage], str]:
        """Where each line lies, and the hash of the file, in one pass."""
        digest, entries, start, line = hashlib.sha256(), [], 0, 0
        place = self._columns.index("image_id")
        size = len(self._text)
        with (
            memoryview(self._text) as content,
            show_progress(f"scan {path.name}", size, unit="B", shown=progress) as advance,
        ):
            while start < size:
                line += 1
                end = self._text.find(b"\n", start) + 1 or size
                digest.update(content[start:end])
                head = self._text[start : min(end, start + _LONGEST_NAME)].split(b"\t")
                name = head[place].strip() if place < len(head) else b""
                if name not in _HEADS and (end - start > _LONGEST_NAME or b"".join(head).strip()):
                    shown = name[:_LONGEST_NAME].decode("utf-8", errors="replace") or f"line {line}"
                    entries.append(SourceImage(shown, (path,), f"line {line}", (start, end)))
                advance(end - start)
                start = end
        return entries, digest.hexdigest()

    def read(self, entry: SourceImage) -> ImageRegions:
        """Decode one line."""
        with memoryview(self._text) as content, content[slice(*entry.key)] as line, ExitStack() as stack:
            fields = [stack.enter_context(line[start:end]) for start, end in self._fields(*entry.key)]
            return self._decode(fields)

    def _fields(self, start: int, end: int) -> list[tuple[int, int]]:
        """Where the fields of a line begin and end in it."""
        while end > start and self._text[end - 1] in b"\r\n":
            end -= 1
        places, begin = [], start
        while (tab := self._text.find(b"\t", begin, end)) >= 0:
            places.append((begin - start, tab - start))
            begin = tab + 1
        return [*places, (begin - start, end - start)]

    def _decode(self, fields: list[memoryview]) -> ImageRegions:
        if len(fields) != len(self._columns):
            what = "is cut off" if len(fields) < len(self._columns) else "runs into the next, a line break is missing"
            raise ValueError(f"{len(fields)} columns, not {len(self._columns)} ({', '.join(self._columns)}): it {what}")
        row = dict(zip(self._columns, fields, strict=True))
        count = number(bytes(row["num_boxes"]), "num_boxes")
        features = _decode(row, "features", "<f4", None)
        if features.size % max(count, 1) or (features.size and not count):
            raise ValueError(f"features are {features.size} numbers, which is no multiple of its {count} boxes")
        optional = {
            ours: _decode(row, theirs, kind, count)
            for ours, theirs, kind in (
                ("labels", "objects_id", "<i8"),
                ("scores", "objects_conf", "<f4"),
                ("attributes", "attrs_id", "<i8"),
                ("attribute_scores", "attrs_conf", "<f4"),
            )
            if theirs in row
        }
        return ImageRegions(
            features.reshape(count, features.size // count if count else 0),
            _decode(row, "boxes", "<f4", 4 * count).reshape(count, 4),
            (number(bytes(row["image_w"]), "image_w", least=1), number(bytes(row["image_h"]), "image_h", least=1)),
            **optional,
        )

    def close(self) -> None:
        """Give the mapped file back."""
        self._text.close()


def _columns(path: Path, lines: list[bytes]) -> tuple[str, ...]:
    """The names of the columns, by the header or by their number, which is that of most of the first lines."""
    found = [line.rstrip(b"\r\n").split(b"\t") for line in lines] or [[b""]]
    counts = Counter(len(fields) for fields in found if len(fields) in _ORDERS)
    if found[0][0] in _HEADS or b"num_boxes" in found[0]:
        names = tuple(name.decode("utf-8", errors="replace").strip() for name in found[0])
    elif counts:
        names = _ORDERS[counts.most_common(1)[0][0]]
    else:
        raise ValueError(
            f"{path}: line 1 has {len(found[0])} columns; a bottom-up TSV has {len(OLDER)} ({', '.join(OLDER)}) or "
            f"{len(LXMERT)} ({', '.join(LXMERT)})"
        )
    names = tuple(_ONE_NAME.get(name, name) for name in names)
    if missing := [name for name in OLDER if name not in names]:
        raise ValueError(f"{path}: its header lacks the column {missing[0]} (it has {', '.join(names)})")
    return names


def _decode(row: dict[str, memoryview], name: str, kind: str, count: int | None) -> np.ndarray:
    """An array of `count` numbers out of base64, strictly: Python's usual decoder skips what does not belong there."""
    text = row[name]
    if text[:2] == b"b'":  # str(bytes), as scripts for Python 2 write it when run by Python 3
        text = text[2:-1]
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"{name} is not base64, or cut off ({error})") from None
    dtype = np.dtype(kind)
    if len(content) % dtype.itemsize or (count is not None and len(content) != count * dtype.itemsize):
        wanted = f"whole numbers of {dtype.itemsize} bytes" if count is None else f"{count} numbers of {dtype}"
        raise ValueError(f"{name} has {len(content)} bytes, which are not {wanted}")
    return np.frombuffer(content, dtype)
