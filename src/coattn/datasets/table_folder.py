"""A folder as one table: files of rows named by their split, or what the library `datasets` of Hugging Face saved.

folder/train.jsonl, folder/validation.csv, folder/test-00000-of-00002.jsonl, folder/train/metadata.csv
folder/dataset_dict.json (of `DatasetDict.save_to_disk`), folder/state.json (of `Dataset.save_to_disk`)
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from coattn.datasets.rows import TABLE_SUFFIXES, Row, Rows, read_rows

_NOT_TABLES = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "images.json"})
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![a-z])", re.IGNORECASE)
_SAVED = ("dataset_dict.json", "state.json")
_SIGNATURES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*": ".tif",
}


class FolderTable(NamedTuple):
    """A folder's rows.

    Attributes:
        rows: of all files, with a column "split" if the files are named so.
        images: image id, which stands in the rows, to what opens like an image file; of tables that hold images.
    """

    rows: Rows
    images: dict[str, Any]


class CellImage:
    """An image in a cell of a table, as a file of its own."""

    def __init__(self, table: Any, row: int, column: str, suffix: str) -> None:
        self.table, self.row, self.column, self.suffix = table, row, column, suffix

    def open(self, mode: str = "rb") -> BinaryIO:
        """The image's bytes; `mode` can only be "rb"."""
        return io.BytesIO(self.table[self.row][self.column]["bytes"])


def read_folder(folder: str | Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> FolderTable:
    """Read a folder of tables, or one that the library `datasets` saved.

    Args:
        folder: where the files are; tables may lie in subfolders named by split.
        encoding, delimiter: of tables, as for `read_rows`.

    Raises:
        ValueError: the folder holds no table, or a table is not what it should be.
        ModuleNotFoundError: it was saved by `datasets`, which is not installed.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    if any((folder / name).is_file() for name in _SAVED):
        return _saved(folder)
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in TABLE_SUFFIXES and path.name not in _NOT_TABLES
    )
    if not files:
        parquet = next(iter(sorted(folder.rglob("*.parquet"))), None)
        hint = f"; of {parquet.name} make one with datasets.load_dataset(...).save_to_disk(...)" if parquet else ""
        raise ValueError(f"{folder} holds no table ({', '.join(TABLE_SUFFIXES)}){hint}")
    columns: dict[str, None] = {}
    rows = []
    for path in files:
        table, split = read_rows(path, encoding=encoding, delimiter=delimiter), _split_of(path.relative_to(folder))
        columns |= dict.fromkeys(table.columns)
        for row in table.rows:
            cells = row.cells if split is None or "split" in row.cells else {**row.cells, "split": split}
            rows.append(Row(f"{path.name}: {row.place}", cells, row.problem))
    if any("split" in row.cells for row in rows):
        columns["split"] = None
    return FolderTable(Rows([*columns], rows), {})


def _split_of(path: Path) -> str | None:
    """What the name of a file, or else of its folder, says."""
    for part in (path.stem, *reversed(path.parent.parts)):
        if found := _SPLIT.match(part):
            return found.group(1).lower()
    return None


def _saved(folder: Path) -> FolderTable:
    try:
        library: Any = importlib.import_module("datasets")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{folder} was saved by the package datasets, which reads it: pip install datasets; or save the table "
            "as JSONL (Dataset.to_json)"
        ) from None
    try:
        saved = library.load_from_disk(str(folder))
    except Exception as error:  # damaged files raise what pyarrow, fsspec and datasets happen to raise
        raise ValueError(f"{folder}: not a whole saved data set ({type(error).__name__}: {error!s:.200})") from None
    tables = dict(saved) if isinstance(saved, dict) else {"": saved}
    rows: list[Row] = []
    images: dict[str, Any] = {}
    for split, table in tables.items():
        pictures = [name for name, kind in table.features.items() if isinstance(kind, library.Image)]
        for name in pictures:
            table = table.cast_column(name, library.Image(decode=False))
        rows += _table_rows(table, split, pictures, images)
    columns = dict.fromkeys(column for table in tables.values() for column in table.column_names)
    return FolderTable(Rows([*columns, *([] if "" in tables or "split" in columns else ["split"])], rows), images)


def _table_rows(table: Any, split: str, pictures: list[str], images: dict[str, Any]) -> Iterator[Row]:
    kinds = table.features
    for number in range(len(table)):
        cells = {name: _plain(_named(value, kinds[name])) for name, value in table[number].items()}
        for name in pictures:
            cells[name] = _image_id(cells[name], table, number, name, images)
        yield Row(
            f"{split or 'table'}: row {number}", cells | ({"split": split} if split and "split" not in cells else {})
        )


def _named(value: Any, kind: Any) -> Any:
    """The names of labels, which the library keeps as numbers, also in lists; -1 stands for no label."""
    if isinstance(value, list):
        inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", None)
        return [_named(item, inner) for item in value]
    if isinstance(value, int) and hasattr(kind, "int2str"):
        return kind.int2str(value) if value >= 0 else None
    return value


def _plain(value: Any) -> Any:
    """Answers as texts, where they are objects as in VQA v2."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "answer" in part for part in value):
        return [part["answer"] for part in value]
    return value


def _image_id(image: Any, table: Any, row: int, column: str, images: dict[str, Any]) -> str:
    """The path of an image beside the table; of one within, the hash of its bytes, which rows may share."""
    content = (image or {}).get("bytes")
    if not content:
        return str((image or {}).get("path") or "")
    image_id = hashlib.sha256(content).hexdigest()[:16]
    suffix = next((suffix for start, suffix in _SIGNATURES.items() if content.startswith(start)), ".img")
    images.setdefault(image_id, CellImage(table, row, column, suffix))
    return image_id
