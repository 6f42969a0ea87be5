"""A folder as one table: files of rows named by their split, or the result of `datasets.Dataset.save_to_disk`.

folder/train.jsonl, folder/validation.csv, folder/test-00000-of-00002.parquet, folder/train/metadata.csv
folder/train/data-00000-of-00001.arrow (of `DatasetDict.save_to_disk`), folder/data-00000-of-00001.arrow
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coattn.datasets.arrow_rows import ARROW_SUFFIXES, ArrowTable, read_arrow
from coattn.datasets.rows import TABLE_SUFFIXES, Row, Rows, read_rows

_SUFFIXES = (*TABLE_SUFFIXES, *ARROW_SUFFIXES)
_NOT_TABLES = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "images.json"})
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![a-z])", re.IGNORECASE)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


class FolderTable(NamedTuple):
    """A folder's rows.

    Attributes:
        rows: the rows of all files, with a column "split" if the files are named by split.
        images: image id, as in the rows, to an object that opens like an image file; for tables that hold images.
    """

    rows: Rows
    images: dict[str, Any]


def read_folder(folder: str | Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> FolderTable:
    """Read a folder of tables, or one Parquet or Arrow file.

    Args:
        folder: the folder of the files, which may be in subfolders named by split; or the file.
        encoding, delimiter: as for `read_rows`.

    Raises:
        ValueError: the folder holds no table, a part of a table is missing, or a table is damaged.
        ModuleNotFoundError: a file is Parquet or Arrow, and pyarrow is not installed.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    files = [folder] if folder.is_file() else _tables(folder)
    columns: dict[str, None] = {}
    rows: list[Row] = []
    images: dict[str, Any] = {}
    for path in files:
        table: Rows | ArrowTable
        if path.suffix.lower() in ARROW_SUFFIXES:
            table = read_arrow(path, images)
        else:
            table = read_rows(path, encoding=encoding, delimiter=delimiter)
        name = path.name if path == folder else path.relative_to(folder).as_posix()
        rows += _named_by_split(table.rows, name, _split_of(Path(name)))
        columns |= dict.fromkeys(table.columns)
    if any("split" in row.cells for row in rows):
        columns["split"] = None
    return FolderTable(Rows([*columns], rows), images)


def _named_by_split(rows: Iterable[Row], name: str, split: str | None) -> Iterable[Row]:
    for row in rows:
        cells = row.cells if split is None or "split" in row.cells else {**row.cells, "split": split}
        yield Row(f"{name}: {row.place}", cells, row.problem)


def _tables(folder: Path) -> Sequence[Path]:
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.name not in _NOT_TABLES
    )
    if not files:
        raise ValueError(f"{folder} holds no table ({', '.join(_SUFFIXES)})")
    parts = [(path.parent, found) for path in files if (found := _PART.fullmatch(path.stem))]
    for parent, part in parts:
        there = sum(other == parent and found[1] == part[1] for other, found in parts)
        if there != int(part[3]):
            raise ValueError(
                f"{parent / part[0]}: {there} of {int(part[3])} parts of this table are there; add the others"
            )
    return files


def _split_of(path: Path) -> str | None:
    """The split in the name of a file, or else in that of its folder."""
    for part in (path.stem, *reversed(path.parent.parts)):
        if found := _SPLIT.match(part):
            return found.group(1).lower()
    return None
