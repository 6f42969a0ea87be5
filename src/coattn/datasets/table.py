"""The user's own table of images, questions and answers: CSV, TSV, JSON or JSONL, or a folder of such.

Text is taken as it is, but white space at the ends is dropped and runs of it become one space. An answer is never split
at commas: "left lung, lower lobe" is one answer.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coattn.datasets.image_files import ImageFolder, hold_out
from coattn.datasets.prepared import Dataset
from coattn.datasets.reader import Reader
from coattn.datasets.records import METRICS, Record, default_metric
from coattn.datasets.row_records import RowReader
from coattn.datasets.rows import DELIMITERS, Row, Rows, read_rows
from coattn.datasets.table_folder import read_folder
from coattn.text.answers import normalize_answer

_DESCRIPTION = """\
your own CSV, TSV, JSON (list of objects) or JSONL, or a folder of them, also of Hugging Face datasets

Columns, found by these names in any case, or by --column:
  image          path or name of the image, with or without its suffix (also image_id, image_name, filename ...)
  question       the question
  answer         one answer, whatever it holds: commas and | belong to it
  answers        several people's answers: a JSON list, or divided by |
  question_id    by default the row number
  split          train, val or test; by default images are divided at random (fixed), never an image between two splits
  answer_type    by default yes/no, number or other, by the answer
  question_type
A folder holds a file per split (train.jsonl, validation.csv, test-00000-of-00002.jsonl), or what Dataset.save_to_disk
wrote, with or without the images, for which the package datasets has to be installed.
Other columns are passed through. Where most questions have one answer, exact match judges, else VQA accuracy.

  coattn prepare table answers.csv --images scans data/mine
  coattn prepare table qa.tsv --images scans --column question="Question text" --test-fraction 0.2 data/mine"""

_DECIMAL_COMMA = re.compile(r"\d,\d{1,2}(?!\d)")
# The names by which a column is found, best first.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": (
        "image",
        "image_path",
        "image_file",
        "image_name",
        "image_id",
        "img",
        "img_name",
        "img_id",
        "filename",
        "file_name",
    ),
    "question": ("question", "question_text", "q"),
    "answer": ("answer",),
    "answers": ("answers",),
    "question_id": ("question_id", "qid"),
    "split": ("split",),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", type=Path, help=".csv, .tsv, .json or .jsonl, or a folder")
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


def _from_arguments(args: argparse.Namespace) -> Dataset:
    return read_table(
        args.table,
        images=args.images,
        columns=given_columns(args.column),
        val_fraction=args.val_fraction,
        test_fraction=args.test_fraction,
        seed=args.seed,
        metric=args.metric,
        encoding=args.encoding,
        delimiter=DELIMITERS.get(args.delimiter),
        skip_bad_rows=args.skip_bad_rows,
    )


def given_columns(items: Sequence[str]) -> dict[str, str]:
    """What `--column FIELD=NAME`, given several times, says: field to column name."""
    columns = {}
    for item in items:
        name, equals, column = item.partition("=")
        if not equals or name not in _COLUMNS:
            raise ValueError(f"--column {item}: write FIELD=NAME, with FIELD one of {', '.join(_COLUMNS)}")
        columns[name] = column
    return columns


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
    """Read a table of questions; `coattn prepare table --help` says which columns it has.

    Args:
        path: `.csv`, `.tsv`, `.json` or `.jsonl`, or a folder (see `table_folder`).
        images: folder of the images; without it the image column holds ids, and no image is looked for.
        columns: field ("image", "question", ...) to the column that holds it; "" for none.
        val_fraction, test_fraction: share of the images held out. Without a split column 0.1 each. With one, they are
            taken from its train rows, and only if it has no such split itself.
        seed: which images are held out.
        metric: the name of a metric; None chooses by the answers.
        encoding: of the file.
        delimiter: between cells.
        skip_bad_rows: leave defective rows out and list them, instead of refusing the table.

    Raises:
        ValueError: a needed column is missing, or rows are defective; the message names file, row and fix.
        OSError: the file cannot be read.
    """
    inside: dict[str, Any] = {}
    if Path(path).is_dir():
        rows, inside = read_folder(path, encoding=encoding, delimiter=delimiter)
    else:
        rows = read_rows(path, encoding=encoding, delimiter=delimiter)
    reader = RowReader(find_columns(path, rows, columns or {}), None if images is None else ImageFolder(images))
    records, skipped = _read_all(path, rows.rows, reader, skip_bad_rows)
    own = {record.split for record in records} if "split" in reader.columns else set()
    given = {"test": test_fraction, "val": val_fraction}
    splits = _divide(path, records, {name: _fraction(name, given[name], own, path) for name in given}, seed)
    single = sum(len(record.answers) == 1 for record in records)
    metric = metric or default_metric(records, several="soft_accuracy")
    notes = [f"columns: {', '.join(f'{name} = {column!r}' for name, column in reader.columns.items())}"]
    if images is None and not inside:
        notes.insert(0, "without --images the images are ids only; there is no images.json")
    if "train" in splits and "val" not in splits:
        notes.append("there is no val split, which training needs; --val-fraction 0.1 holds images of train out for it")
    if metric == "vqa_accuracy" and single:
        notes.append(f"{single} questions have one answer; VQA accuracy gives them 0, whatever is predicted")
    return Dataset(
        name="table",
        source=str(Path(path).resolve()),
        splits=splits,
        metric=metric,
        images=inside if images is None else {str(r.image_id): Path(images, str(r.image_id)) for r in records},
        copy_images=images is None and bool(inside),
        skipped=skipped,
        notes=[*notes, *_decimal_commas(records)],
    )


def find_columns(
    path: str | Path,
    rows: Rows,
    given: Mapping[str, str] = MappingProxyType({}),
    needed: Sequence[str] = ("image", "question", "answer"),
) -> dict[str, str]:
    """Field to column, of the fields that the table has.

    Args:
        path: of the table, for messages.
        rows: the table.
        given: what `--column` says; other columns are found by their names.
        needed: fields without which the table is of no use; several people's answers are an answer too.

    Raises:
        ValueError: a needed column is missing; the message lists those that are there.
    """
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
    missing = [name for name in needed if name not in found and not (name == "answer" and "answers" in found)]
    if missing:
        raise ValueError(
            f"{path}: there is no column for {' and '.join(missing)}; {_columns_text(rows)}. Say which one it is, for "
            f"example --column {missing[0]}=NAME"
        )
    return found


def _decimal_commas(records: Sequence[Record]) -> list[str]:
    """A note if answers are like "3,5 cm": to the official normalisation a comma between digits is nothing."""
    found = [answer for record in records for answer in record.answers if _DECIMAL_COMMA.search(answer)]
    if not found:
        return []
    return [
        f"{len(found)} answers have a decimal comma, which the official normalisation drops: {found[0]!r} becomes "
        f"{normalize_answer(found[0])!r}; write a point"
    ]


def _plain(column: str) -> str:
    return "_".join(column.casefold().replace("-", " ").replace("_", " ").split())


def _columns_text(rows: Rows) -> str:
    return f"the table has {', '.join(map(repr, rows.columns)) or 'no columns'}"


def _read_all(
    path: str | Path, rows: Sequence[Row], reader: RowReader, skip_bad_rows: bool
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


READER = Reader(_DESCRIPTION, _add_arguments, _from_arguments)
