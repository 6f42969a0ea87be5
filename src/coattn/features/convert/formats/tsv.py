"""TSV files with one image a line, arrays in base64.

Checked on real lines in LXMERT's order (airsplay/py-bottom-up-attention, demo). The older order and a header line are
taken from peteanderson80/bottom-up-attention's README and openvqa's and DCN's readers.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from coattn._internal.files import require_regular
from coattn._internal.progress import progress as show_progress
from coattn.features.convert.formats.arrays import from_base64
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
_DETECTIONS = (
    ("labels", "objects_id", "<i8"),
    ("scores", "objects_conf", "<f4"),
    ("attributes", "attrs_id", "<i8"),
    ("attribute_scores", "attrs_conf", "<f4"),
)


class LineSource(FileSource):
    """A mapped text file with one image a line, whose fields are divided by tabs.

    Args:
        path: the file.
        name_column: number of the column that holds the image's name.
        headings: names that are no images, of a header line.
        progress: show how far the file is scanned.

    Raises:
        ValueError: not a regular file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, name_column: int, *, headings: tuple[bytes, ...] = (), progress: bool) -> None:
        with path.open("rb") as file:
            # A mapped byte is copied nowhere but by the decoder.
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # The lines and the hash of the file are found in one pass.
        digest, entries, start, line = hashlib.sha256(), [], 0, 0
        size = len(self._text)
        with (
            memoryview(self._text) as content,
            show_progress(f"scan {path.name}", size, unit="B", shown=progress) as advance,
        ):
            while start < size:
                line += 1
                self._check_whole(path, size)
                end = self._text.find(b"\n", start) + 1 or size
                digest.update(content[start:end])
                head = self._text[start : min(end, start + _LONGEST_NAME)].split(b"\t")
                name = head[name_column].strip() if name_column < len(head) else b""
                if name not in headings and (end - start > _LONGEST_NAME or b"".join(head).strip()):
                    shown = name[:_LONGEST_NAME].decode("utf-8", errors="replace") or f"line {line}"
                    entries.append(SourceImage(shown, (path,), f"line {line}", (start, end)))
                advance(end - start)
                start = end
        self.entries = entries
        super().__init__(path, sha256=digest.hexdigest())

    def _check_whole(self, path: Path, end: int) -> None:
        """Refuse a file that became shorter: reading behind its end would end the process."""
        if self._text.size() < end:
            raise ValueError(f"{path}: was truncated to {self._text.size()} bytes while it was read")

    def fields(self, entry: SourceImage, stack: ExitStack) -> list[memoryview]:
        """The fields of a line; they are released when `stack` is closed."""
        start, end = entry.key
        self._check_whole(self.path, end)
        content = stack.enter_context(memoryview(self._text))
        while end > start and self._text[end - 1] in b"\r\n":
            end -= 1
        places = []
        while (tab := self._text.find(b"\t", start, end)) >= 0:
            places.append((start, tab))
            start = tab + 1
        return [stack.enter_context(content[begin:stop]) for begin, stop in [*places, (start, end)]]

    def close(self) -> None:
        """Unmap the file."""
        self._text.close()


class BottomUpTsv(LineSource):
    """The columns of Anderson et al. (2018, arXiv 1707.07998), or those of LXMERT (height before width).

    `objects_id` and `objects_conf` become labels and scores, `attrs_id` and `attrs_conf` attributes and their scores.
    Damaged lines do not affect others.

    Raises:
        ValueError: not such a file; the message describes its first line.
        OSError: it cannot be read.
    """

    extractor = "bottom-up"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        require_regular(path)
        with path.open("rb") as file:
            self._columns = _columns(path, list(islice(file, _FIRST_LINES)))
        super().__init__(path, self._columns.index("image_id"), headings=_HEADS, progress=progress)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Decode one line."""
        with ExitStack() as stack:
            fields = self.fields(entry, stack)
            if len(fields) != len(self._columns):
                what = "is cut off" if len(fields) < len(self._columns) else "lacks a line break and includes the next"
                raise ValueError(
                    f"{len(fields)} columns, not {len(self._columns)} ({', '.join(self._columns)}): it {what}"
                )
            row = dict(zip(self._columns, fields, strict=True))
            count = number(bytes(row["num_boxes"]), "num_boxes")
            features = from_base64(row["features"], "features", "<f4")
            if features.size % max(count, 1) or (features.size and not count):
                raise ValueError(f"features are {features.size} numbers, which is not a multiple of its {count} boxes")
            optional = {
                ours: from_base64(row[theirs], theirs, dtype, count)
                for ours, theirs, dtype in _DETECTIONS
                if theirs in row
            }
            return ImageRegions(
                features.reshape(count, features.size // count if count else 0),
                from_base64(row["boxes"], "boxes", "<f4", 4 * count).reshape(count, 4),
                (number(bytes(row["image_w"]), "image_w", least=1), number(bytes(row["image_h"]), "image_h", least=1)),
                **optional,
            )


def _columns(path: Path, lines: list[bytes]) -> tuple[str, ...]:
    """Names of the columns, by the header, or by the number of columns that most of the first lines have."""
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
