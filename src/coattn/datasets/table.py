"""A user's own table of images, questions and answers: CSV, TSV, JSON or JSONL, Parquet, or a folder of such files.

White space at the ends of a text is dropped, and runs of it become one space. An answer is never split at commas:
"left lung, lower lobe" is one answer.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from coattn.datasets.arrow_rows import ARROW_SUFFIXES
from coattn.datasets.bad_records import BadRecords
from coattn.datasets.copies import find_copies
from coattn.datasets.dividing import divide
from coattn.datasets.image_files import ImageFolder
from coattn.datasets.prepared import Dataset
from coattn.datasets.reader import SKIP_BAD_ROWS, Reader
from coattn.datasets.records import METRICS, Record, default_metric
from coattn.datasets.row_records import RowReader, ids_repeat_per_image, unanswered_splits
from coattn.datasets.rows import DELIMITERS, Rows, read_rows
from coattn.datasets.table_columns import FIELDS, find_columns, given_columns, unused_group
from coattn.datasets.table_folder import read_folder
from coattn.text.answers import normalize_answer

_DESCRIPTION = """\
your own CSV, TSV, JSON (list of objects), JSONL or Parquet, or a folder of them, also of Hugging Face datasets

Columns are found by these names in any case, or are named by --column:
  image          path or name of the image, with or without its suffix (also image_id, image_name, filename ...)
  question       the question
  answer         one answer; commas and | are part of it
  answers        the answers of several people: a JSON list of texts or of VQA v2's objects, or texts separated by |
  question_id    the row number by default
  split          train, val or test; by default images are divided at random with a fixed seed
  group          what must stay in one split, for example the patient (--group COLUMN); never found by name
  answer_type    yes/no, number or other, by default derived from the answer
  question_type
An image, all byte-identical copies of a picture, and all images of a group stay in one split. A folder holds one file
per split (train.jsonl, validation.csv, test-00000-of-00002.parquet), or the result of Dataset.save_to_disk, with or
without the images. Parquet and Arrow need the extra 'parquet'. A split other than train may have no answers. Other
columns are passed through. If most questions have one answer, the metric is exact match.

  coattn prepare table answers.csv --images scans data/mine
  coattn prepare table qa.tsv --images scans --column question="Question text" --group patient data/mine"""

_DECIMAL_COMMA = re.compile(r"\d,\d{1,2}(?!\d)")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", type=Path, help="The table: a file, or a folder of files.")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="Folder of the images; leave it out if the image column holds ids."
    )
    parser.add_argument(
        "--column",
        metavar="FIELD=NAME",
        action="append",
        default=[],
        help=f"Use the column NAME for a field ({', '.join(FIELDS)}); an empty NAME uses no column. Repeatable.",
    )
    parser.add_argument("--group", metavar="COLUMN", help="Keep rows with the same value here in one split.")
    parser.add_argument("--val-fraction", type=float, metavar="F", help="Hold out this share as val (default 0.1).")
    parser.add_argument("--test-fraction", type=float, metavar="F", help="Hold out this share as test (default 0.1).")
    parser.add_argument("--seed", type=int, default=0, help="Choose the held-out images by this seed (default 0).")
    parser.add_argument("--metric", choices=METRICS, help="Judge by this metric; by default it depends on the answers.")
    parser.add_argument("--encoding", default="utf-8", help="Encoding of the file (default utf-8).")
    parser.add_argument(
        "--delimiter", choices=DELIMITERS, help="Separator of the cells of a CSV; by default it is found in the header."
    )
    parser.add_argument("--skip-bad-rows", action="store_true", help=SKIP_BAD_ROWS)


def _from_arguments(args: argparse.Namespace) -> Dataset:
    group = {} if args.group is None else {"group": args.group}
    return read_table(
        args.table,
        images=args.images,
        columns=given_columns(args.column) | group,
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
    """Read a table of questions; `coattn prepare table --help` lists its columns.

    Args:
        path: a file, or a folder (see `table_folder`).
        images: folder of the images; without it the image column holds ids, and no image is looked for.
        columns: field ("image", "question", ...) to the name of its column; "" for none.
        val_fraction, test_fraction: share of the images, or of the groups, to hold out. The default is 0.1 without a
            split column, else 0. With a split column they are taken from its train rows, for splits that it lacks.
        seed: chooses the images that are held out.
        metric: the name of a metric; None chooses it by the answers.
        encoding: encoding of the file.
        delimiter: separator of the cells of a CSV.
        skip_bad_rows: leave defective rows out instead of refusing the table.

    Raises:
        ValueError: a required column is missing, or rows are defective; the message names file, row and fix.
        OSError: the file cannot be read.
    """
    inside: dict[str, Any] = {}
    if Path(path).is_dir() or Path(path).suffix.lower() in ARROW_SUFFIXES:
        rows, inside = read_folder(path, encoding=encoding, delimiter=delimiter)
    else:
        rows = read_rows(path, encoding=encoding, delimiter=delimiter)
    if not rows.rows:
        raise ValueError(f"{path}: there is no row below the column names")
    found = find_columns(path, rows, columns or {})
    reader = RowReader(
        found,
        folder=None if images is None else ImageFolder(images),
        unanswered=unanswered_splits(rows.rows, found),
        ids_per_image=ids_repeat_per_image(rows.rows, found),
    )
    bad = BadRecords(skip_bad_rows)
    numbered = (row._replace(number=number) for number, row in enumerate(rows.rows, start=1))
    records = bad.keep(path, numbered, reader.read)
    files = inside if images is None else {str(r.image_id): Path(images, str(r.image_id)) for r in records}
    copies = find_copies(files)
    own = {record.split for record in records} if "split" in found else set()
    asked = {"test": test_fraction, "val": val_fraction}
    fractions = {name: _fraction(name, asked[name], own, path) for name in asked}
    try:
        splits = divide(records, fractions, seed=seed, copies=copies)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    metric = metric or default_metric(records, several="soft_accuracy")
    return Dataset(
        name="table",
        source=str(Path(path).resolve()),
        splits=splits,
        metric=metric,
        images=files,
        copy_images=images is None and bool(inside),
        skipped=bad.left_out,
        copies=copies,
        notes=_notes(records, splits, metric, rows, reader, bool(files)),
    )


def _notes(
    records: Sequence[Record],
    splits: Mapping[str, Sequence[Record]],
    metric: str,
    rows: Rows,
    reader: RowReader,
    has_images: bool,
) -> list[str]:
    """Notes about the table for people."""
    notes = [] if has_images else ["without --images the images are ids only; there is no images.json"]
    notes.append(f"columns: {', '.join(f'{name} = {column!r}' for name, column in reader.columns.items())}")
    if reader.ids_per_image:
        notes.append("question ids repeat for each image; they became IMAGE/ID")
    if group := unused_group(rows, reader.columns):
        notes.append(f"the column {group!r} may name what belongs together; --group {group!r} keeps it in one split")
    if "train" in splits and "val" not in splits:
        notes.append("there is no val split, which training needs; --val-fraction 0.1 holds images of train out for it")
    if unanswered := sorted(reader.unanswered):
        notes.append(f"no question of {' and '.join(unanswered)} has an answer; it can be predicted but not scored")
    lone = sum(len(record.answers) == 1 for record in records)
    if metric == "vqa_accuracy" and lone:
        notes.append(f"{lone} questions have one answer; VQA accuracy scores them 0 for every prediction")
    commas = [answer for record in records for answer in record.answers if _DECIMAL_COMMA.search(answer)]
    if commas:
        notes.append(
            f"{len(commas)} answers have a decimal comma, which the official normalization drops: {commas[0]!r} "
            f"becomes {normalize_answer(commas[0])!r}; write a point"
        )
    return notes


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


READER = Reader(
    _DESCRIPTION,
    _add_arguments,
    _from_arguments,
    checked="real file: the indoor annotations of EgoTextVQA",
)
