"""The user's own table of images, questions and answers: CSV, TSV, JSON or JSONL.

Text is taken as it is, but white space at the ends is dropped and runs of it become one space. An answer is never split
at commas: "left lung, lower lobe" is one answer.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coattn.datasets.image_files import ImageFolder, hold_out
from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record
from coattn.datasets.rows import DELIMITERS, Row, Rows, read_rows
from coattn.datasets.vqa_json import METRICS
from coattn.text.answers import normalize_answer

DESCRIPTION = """\
your own CSV, TSV, JSON (list of objects) or JSONL

Columns, found by these names in any case, or by --column:
  image          path or name of the image, with or without its suffix (also image_id, image_name, filename ...)
  question       the question
  answer         one answer, whatever it holds: commas and | belong to it
  answers        several people's answers: a JSON list, or divided by |
  question_id    by default the row number
  split          train, val or test; by default images are divided at random (fixed), never an image between two splits
  answer_type    by default yes/no, number or other, by the answer
  question_type
Other columns are passed through. Where most questions have one answer, exact match judges, else VQA accuracy.

  coattn prepare table answers.csv --images scans data/mine
  coattn prepare table qa.tsv --images scans --column question="Question text" --test-fraction 0.2 data/mine"""

# The names by which a column is found, best first.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "image_file", "image_name", "image_id", "img", "img_name", "img_id", "filename"),
    "question": ("question", "question_text", "q"),
    "answer": ("answer",),
    "answers": ("answers",),
    "question_id": ("question_id", "qid"),
    "split": ("split", "subset", "phase"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}
_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn prepare table`."""
    parser.add_argument("table", metavar="TABLE", type=Path, help=".csv, .tsv, .json or .jsonl")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the images; leave out where there are only ids"
    )
    parser.add_argument(
        "--column",
        metavar="FIELD=NAME",
        action="append",
        default=[],
        help=f"the column to use for {', '.join(_COLUMNS)}; an empty NAME uses none; repeatable",
    )
    parser.add_argument("--val-fraction", type=float, metavar="F", help="share of the images for val (default 0.1)")
    parser.add_argument("--test-fraction", type=float, metavar="F", help="share of the images for test (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="which images those are (default 0)")
    parser.add_argument("--metric", choices=METRICS, help="by default chosen by the answers")
    parser.add_argument("--encoding", default="utf-8", help="of the file (default utf-8)")
    parser.add_argument(
        "--delimiter", choices=DELIMITERS, help="between the cells of a CSV (default: what fits the header)"
    )
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave defective rows out, and list them")


def from_arguments(args: argparse.Namespace) -> Dataset:
    """The data set of the command line."""
    columns = {}
    for item in args.column:
        name, equals, column = item.partition("=")
        if not equals or name not in _COLUMNS:
            raise ValueError(f"--column {item}: write FIELD=NAME, with FIELD one of {', '.join(_COLUMNS)}")
        columns[name] = column
    return read_table(
        args.table,
        images=args.images,
        columns=columns,
        val_fraction=args.val_fraction,
        test_fraction=args.test_fraction,
        seed=args.seed,
        metric=args.metric,
        encoding=args.encoding,
        delimiter=DELIMITERS.get(args.delimiter),
        skip_bad_rows=args.skip_bad_rows,
    )


def read_table(
    path: str | Path,
    *,
    images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    metric: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Read a table of questions; see DESCRIPTION for its columns.

    Args:
        path: `.csv`, `.tsv`, `.json` or `.jsonl`.
        images: folder of the images; without it the image column holds ids, and no image is looked for.
        columns: field ("image", "question", ...) to the column that holds it; "" for none.
        val_fraction, test_fraction: share of the images held out. Without a split column 0.1 each. With one, they are
            taken from its train rows, and only if it has no such split itself.
        seed: which images are held out.
        metric: "vqa_accuracy" or "exact_match"; None chooses by the answers.
        encoding: of the file.
        delimiter: between cells.
        skip_bad_rows: leave defective rows out and list them, instead of refusing the table.

    Raises:
        ValueError: a needed column is missing, or rows are defective; the message names file, row and fix.
        OSError: the file cannot be read.
    """
    rows = read_rows(path, encoding=encoding, delimiter=delimiter)
    reader = _RowReader(_find_columns(path, rows, columns or {}), None if images is None else ImageFolder(images))
    records, skipped = _read_all(path, rows.rows, reader, skip_bad_rows)
    own = {record.split for record in records} if "split" in reader.columns else set()
    given = {"test": test_fraction, "val": val_fraction}
    splits = _divide(path, records, {name: _fraction(name, given[name], own, path) for name in given}, seed)
    notes = [f"columns: {', '.join(f'{name} = {column!r}' for name, column in reader.columns.items())}"]
    if "train" in splits and "val" not in splits:
        notes.append("there is no val split, which training needs; --val-fraction 0.1 holds images of train out for it")
    single = sum(len(record.answers) == 1 for record in records)
    metric = metric or ("exact_match" if 2 * single > len(records) else "vqa_accuracy")
    if metric == "vqa_accuracy" and single:
        notes.append(f"{single} questions have one answer; VQA accuracy gives them 0, whatever is predicted")
    image_ids = dict.fromkeys(str(record.image_id) for record in records)
    return Dataset(
        name="table",
        source=str(Path(path).resolve()),
        splits=splits,
        metric=metric,
        images={} if images is None else {image_id: Path(images, image_id) for image_id in image_ids},
        skipped=skipped,
        notes=notes,
    )


def _find_columns(path: str | Path, rows: Rows, given: Mapping[str, str]) -> dict[str, str]:
    """Field to column, of the fields that the table has."""
    by_name: dict[str, str] = {}
    for column in rows.columns:
        by_name.setdefault(_plain(column), column)
    found = {}
    for name, aliases in _COLUMNS.items():
        if name in given:
            if given[name] and given[name] not in rows.columns and _plain(given[name]) not in by_name:
                raise ValueError(f"{path}: there is no column {given[name]!r} for {name}; {_columns_text(rows)}")
            if given[name]:
                found[name] = given[name] if given[name] in rows.columns else by_name[_plain(given[name])]
        elif alias := next((alias for alias in aliases if alias in by_name), None):
            found[name] = by_name[alias]
    missing = [name for name in ("image", "question") if name not in found]
    missing += [] if {"answer", "answers"} & set(found) else ["answer"]
    if missing:
        raise ValueError(
            f"{path}: there is no column for {' and '.join(missing)}; {_columns_text(rows)}. Say which one it is, for "
            f"example --column {missing[0]}=NAME"
        )
    return found


def _plain(column: str) -> str:
    return "_".join(column.casefold().replace("-", " ").replace("_", " ").split())


def _columns_text(rows: Rows) -> str:
    return f"the table has {', '.join(map(repr, rows.columns)) or 'no columns'}"


@dataclass(frozen=True, slots=True)
class _RowReader:
    """Turns a row into a record, or raises ValueError with what is wrong with it."""

    columns: Mapping[str, str]
    folder: ImageFolder | None
    first_place: dict[tuple[str, str], str] = field(default_factory=dict)

    def read(self, row: Row, number: int) -> Record:
        if row.problem:
            raise ValueError(row.problem)
        image, question = self._text(row, "image"), self._text(row, "question")
        for name, text in (("image", image), ("question", question)):
            if not text:
                raise ValueError(f"the {name} is empty")
        answer = self._text(row, "answer") if "answer" in self.columns else ""
        several = self._answers(row)
        answers = several or ((answer,) if answer else ())
        if not answers:
            raise ValueError("the answer is empty")
        split = self._split(row)
        question_id = self._text(row, "question_id") if "question_id" in self.columns else str(number)
        if not question_id:
            raise ValueError("the question_id is empty")
        first = self.first_place.setdefault((split, question_id), row.place)
        if first != row.place:
            raise ValueError(f"question_id {question_id!r} stands also in {first}")
        used = set(self.columns.values())
        return Record(
            question_id=int(question_id) if _is_integer(question_id) else question_id,
            image_id=image if self.folder is None else self.folder.find(image),
            question=question,
            answers=answers,
            answer_type=self._text(row, "answer_type").lower() or _answer_type(answer or answers[0]),
            question_type=self._text(row, "question_type").lower(),
            split=split,
            multiple_choice_answer=answer if several else "",
            extra={name: value for name, value in row.cells.items() if name not in used and value not in ("", None)},
        )

    def _text(self, row: Row, name: str) -> str:
        return _cell_text(row.cells.get(self.columns[name]), name) if name in self.columns else ""

    def _answers(self, row: Row) -> tuple[str, ...]:
        if "answers" not in self.columns:
            return ()
        value = row.cells.get(self.columns["answers"])
        values = _as_list(value) if isinstance(value, str) else value
        texts = [_cell_text(item, "answers") for item in (values if isinstance(values, list) else [values])]
        return tuple(text for text in texts if text)

    def _split(self, row: Row) -> str:
        if "split" not in self.columns:
            return ""
        name = self._text(row, "split").lower()
        if not name:
            raise ValueError("the split is empty")
        return _SPLITS.get(name, name)


def _cell_text(value: Any, name: str) -> str:
    """A cell as text; numbers of JSON as JSON writes them, null and NaN as nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"the {name} is {json.dumps(value)[:60]}, must be text or a number")
    return " ".join(str(value).split())


def _as_list(text: str) -> list[Any]:
    """Several answers in one cell: a JSON list, a Python list as pandas writes it, or divided by |."""
    if text.strip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list):
                return value
    return text.split("|")


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and text == str(int(text))


def _answer_type(answer: str) -> str:
    normal = normalize_answer(answer)
    if normal in ("yes", "no"):
        return "yes/no"
    return "number" if normal.replace(".", "", 1).isdecimal() else "other"


def _read_all(
    path: str | Path, rows: Sequence[Row], reader: _RowReader, skip_bad_rows: bool
) -> tuple[list[Record], list[str]]:
    records, problems = [], []
    for number, row in enumerate(rows, start=1):
        try:
            records.append(reader.read(row, number))
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
    if problems and not skip_bad_rows:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{path}: {len(problems)} of {len(rows)} rows are defective: {'; '.join(problems[:3])}{more}. "
            "Correct them, or leave them out with --skip-bad-rows"
        )
    if not records:
        raise ValueError(f"{path}: no row is left" if problems else f"{path}: there is no row below the column names")
    return records, problems


def _fraction(name: str, given: float | None, own: Set[str], path: str | Path) -> float:
    """The share of the images to hold out as split `name`, where `own` are the splits that the table names itself."""
    if given is None:
        return 0.0 if own else 0.1
    if not 0 <= given < 1:
        raise ValueError(f"--{name}-fraction is {given}, must be at least 0 and below 1")
    if given and name in own:
        raise ValueError(f"{path}: --{name}-fraction {given}, but the split column has {name} rows; leave it out")
    if given and own and "train" not in own:
        raise ValueError(f"{path}: --{name}-fraction {given}, but the split column has no train rows to hold out from")
    return given


def _divide(
    path: str | Path, records: Sequence[Record], fractions: Mapping[str, float], seed: int
) -> dict[str, list[Record]]:
    """Records by split. Images are held out of those that are in train, or in no split yet."""
    remaining = {str(record.image_id) for record in records if record.split in ("", "train")}
    total = len(remaining)
    chosen: dict[str, str] = {}
    for name, fraction in fractions.items():
        count = max(1, round(fraction * total)) if fraction else 0
        images = hold_out(remaining, count, seed=seed)
        chosen |= dict.fromkeys(images, name)
        remaining -= images
    if chosen and not remaining:
        raise ValueError(
            f"{path}: {total} images are too few to hold out {' and '.join(fractions)} and train on the rest"
        )
    splits: dict[str, list[Record]] = {name: [] for name in ("train", "val", "test")}
    for record in records:
        held_out = chosen.get(str(record.image_id)) if record.split in ("", "train") else None
        name = held_out or record.split or "train"
        splits.setdefault(name, []).append(replace(record, split=name))
    return {name: kept for name, kept in splits.items() if kept}
