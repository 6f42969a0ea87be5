"""Rows of Parquet and Arrow files, as the library `datasets` of Hugging Face writes them, with or without images.

Read by pyarrow (the extra "parquet"). The names of class labels and the columns of images are in the schema's metadata.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from coattn._internal.files import require
from coattn.datasets.json_entries import check_regular
from coattn.datasets.rows import Row

ARROW_SUFFIXES = (".parquet", ".arrow")
_SIGNATURES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*": ".tif",
}


class ArrowTable(NamedTuple):
    """The columns and the rows of a Parquet or Arrow file; the rows can be read once."""

    columns: list[str]
    rows: Iterator[Row]


class CellImage:
    """An image in a cell of a table that opens like a file."""

    def __init__(self, groups: _Groups, group: int, row: int, column: str, suffix: str) -> None:
        self.groups, self.group, self.row, self.column, self.suffix = groups, group, row, column, suffix

    def open(self, mode: str = "rb") -> BinaryIO:
        """The image's bytes; `mode` can only be "rb"."""
        return io.BytesIO(self.groups.read(self.group)[self.column][self.row].as_py()["bytes"])


class _Groups:
    """The row groups of a file. The last group that was read is kept, so that its images are not decoded again."""

    def __init__(self, path: Path) -> None:
        pyarrow: Any = require("pyarrow", "parquet")
        if path.suffix.lower() == ".parquet":
            file = require("pyarrow.parquet", "parquet").ParquetFile(path)
            self.count, self.schema, self._read = file.num_row_groups, file.schema_arrow, file.read_row_group
        else:
            mapped = pyarrow.memory_map(str(path))
            try:
                table = pyarrow.ipc.open_stream(mapped).read_all()
            except pyarrow.ArrowInvalid:  # the other kind of Arrow file
                table = pyarrow.ipc.open_file(mapped).read_all()
            self.count, self.schema, self._read = 1, table.schema, lambda number: table
        self._last: tuple[int, Any] = (-1, None)

    def read(self, number: int) -> Any:
        if self._last[0] != number:
            self._last = (number, self._read(number))
        return self._last[1]


def read_arrow(path: Path, images: dict[str, Any]) -> ArrowTable:
    """Read a Parquet or Arrow file.

    Args:
        path: the file.
        images: the images in the cells are added here, by their ids.

    Raises:
        ValueError: the file is damaged; the rows may raise it later.
        ModuleNotFoundError: pyarrow is not installed.
    """
    check_regular(path)
    require("pyarrow", "parquet")
    with _naming_damage(path):
        groups = _Groups(path)
        return ArrowTable(groups.schema.names, _rows(path, groups, images))


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Name the file in errors of pyarrow, which raises nearly anything on damaged files.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: not a whole Parquet or Arrow file ({error!s:.200}); download it again") from None


def _rows(path: Path, groups: _Groups, images: dict[str, Any]) -> Iterator[Row]:
    kinds = _features(groups.schema)
    pictures = [name for name in groups.schema.names if _is_image(kinds.get(name), groups.schema.field(name).type)]
    number = 0
    for group in range(groups.count):
        with _naming_damage(path):
            rows = groups.read(group).to_pylist()
        for index, row in enumerate(rows):
            cells = {name: _named(value, kinds.get(name)) for name, value in row.items()}
            for name in pictures:
                image_id, suffix = _image_id(row[name])
                cells[name] = image_id
                if suffix:
                    images.setdefault(image_id, CellImage(groups, group, index, name, suffix))
            yield Row(f"row {number}", cells)
            number += 1


def _features(schema: Any) -> Mapping[str, Any]:
    """The features that the library `datasets` describes in the metadata of the schema."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_image(kind: Any, stored: Any) -> bool:
    if isinstance(kind, dict) and kind.get("_type") == "Image":
        return True
    return kind is None and {field.name for field in getattr(stored, "fields", [])} == {"bytes", "path"}


def _named(value: Any, kind: Any) -> Any:
    """Replace class labels, which are stored as numbers, by their names, also in lists; -1 means no label."""
    if isinstance(value, list):
        inner = kind.get("feature") if isinstance(kind, dict) else kind[0] if isinstance(kind, list) and kind else None
        return [_named(item, inner) for item in value]
    if isinstance(value, int) and isinstance(kind, dict) and isinstance(kind.get("names"), list):
        return kind["names"][value] if 0 <= value < len(kind["names"]) else None
    return value


def _image_id(image: Any) -> tuple[str, str]:
    """The path of an image outside of the table and ""; or the hash of its bytes, and a suffix."""
    content = (image or {}).get("bytes")
    if not content:
        return str((image or {}).get("path") or ""), ""
    suffix = next((suffix for start, suffix in _SIGNATURES.items() if content.startswith(start)), ".img")
    return hashlib.sha256(content).hexdigest()[:16], suffix
