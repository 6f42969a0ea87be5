"""The rows of a CSV, TSV, JSON or JSONL file, each with its place for messages."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from coattn._internal.files import parse_json
from coattn._internal.kinds import kind_of
from coattn.datasets.json_entries import check_regular

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
_END = "\0end of the table\0"


class Row(NamedTuple):
    """One row.

    Attributes:
        place: "line 7" or "record 7".
        cells: column name to value: text, or any value of JSON.
        problem: the defect of the row as a whole; empty if there is none.
        number: number of the row in its table, from 1.
    """

    place: str
    cells: dict[str, Any]
    problem: str = ""
    number: int = 0

    def __str__(self) -> str:
        return self.place


class Rows(NamedTuple):
    """The columns of a table, as spelled in its header, and its rows."""

    columns: list[str]
    rows: list[Row]


def read_rows(path: str | Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> Rows:
    """Read a table of the kind that the suffix of the file names.

    Args:
        path: a `.csv` or `.tsv` with a header line, a `.json` with a list of objects, or a `.jsonl`.
        encoding: encoding of the text; a byte order mark is dropped.
        delimiter: separator of the cells of a CSV; None takes the one that splits the header into most columns.

    Raises:
        ValueError: the file is not such a table. Defects of single rows are reported in `Row.problem`.
        OSError: the file cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        kind = kind_of(path)
        hint = "; save it as CSV (UTF-8)" if kind == "a spreadsheet" else ""
        raise ValueError(f"{path}: is {kind}; a table is a file of the kind {', '.join(TABLE_SUFFIXES)}{hint}")
    text = read_text(path, encoding)
    if suffix == ".json":
        rows = _json_rows(path, text)
    elif suffix == ".jsonl":
        rows = [_jsonl_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        return _csv_rows(path, text, "\t" if suffix == ".tsv" else delimiter)
    if rows and all(row.problem for row in rows):
        raise ValueError(f"{path}: {rows[0].place}: {rows[0].problem}")
    return Rows(list(dict.fromkeys(column for row in rows for column in row.cells)), rows)


def read_text(path: Path, encoding: str) -> str:
    """Read a text file without its byte order mark.

    Raises:
        ValueError: the file has another encoding, or is a pipe or a device; the message names line and byte.
    """
    check_regular(path)
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding == "utf-8":
        raise ValueError(f"{path}: looks like UTF-16 text; add --encoding utf-16")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise ValueError(f"--encoding {encoding}: there is no such encoding; try utf-8, cp1252 or latin-1") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: line {line}: byte {content[error.start : error.start + 1]!r} is not {encoding} text; convert the "
            "file to UTF-8, or name its encoding, for example --encoding cp1252 (Excel on Windows)"
        ) from None


def _csv_rows(path: Path, text: str, delimiter: str | None) -> Rows:
    first_line = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = delimiter or max(DELIMITERS.values(), key=first_line.count)
    numbered = _parse_csv(path, text, delimiter)
    _, header = next(numbered, (0, []))
    columns = [name.strip() for name in header]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise ValueError(f"{path}: the file is empty; a table begins with a line of column names")
    for name in columns:
        if name and columns.count(name) > 1:
            raise ValueError(f"{path}: two columns are named {name!r}; rename one")
    rows = []
    for line, values in numbered:
        cells = {name: value for name, value in zip(columns, values, strict=False) if name}
        surplus = any(value.strip() for value in values[len(columns) :])
        problem = (
            f"has {len(values)} cells for {len(columns)} columns; put quotation marks around a cell with {delimiter!r}"
        )
        rows.append(Row(f"line {line}", cells, problem if surplus else ""))
    return Rows([name for name in columns if name], rows)


def _parse_csv(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the cells of each row that is not blank.

    A marker line is added at the end. If a cell contains it, a quotation mark was never closed.
    """
    lines = itertools.chain(io.StringIO(text, newline=""), ["\n", _END])
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    start = 1
    try:
        for values in reader:
            if values == [_END]:
                return
            if any(_END in value for value in values):
                break
            if any(value.strip() for value in values):
                yield start, values
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: line {start}: {error}; is a quotation mark not closed?") from None
    raise ValueError(f'{path}: line {start}: a quotation mark (") opens in this row and is never closed')


def _json_rows(path: Path, text: str) -> list[Row]:
    value = parse_json(text, path)
    if not isinstance(value, list):
        raise ValueError(f'{path}: a JSON table is a list of objects: [{{"image": ..., "question": ...}}, ...]')
    return [_object_row(f"record {number}", entry) for number, entry in enumerate(value)]


def _jsonl_row(number: int, line: str) -> Row:
    place = f"line {number}"
    try:
        return _object_row(place, parse_json(line, "this line"))
    except ValueError as error:
        return Row(place, {}, str(error))


def _object_row(place: str, entry: Any) -> Row:
    if not isinstance(entry, dict):
        return Row(place, {}, f"is {json.dumps(entry)[:60]}, must be an object with a value per column")
    return Row(place, {name.strip(): value for name, value in entry.items()})
