"""The columns of a user's table: found by their names, or given by `--column FIELD=NAME`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from coattn._internal.hints import did_you_mean, nearest
from coattn.datasets.rows import Rows

# The names by which the column of a field is found, best first.
FIELDS: dict[str, tuple[str, ...]] = {
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
    "group": (),
}
# Columns that often name what belongs together; they are used by `--group` only.
_USUAL_GROUPS = frozenset({"patient", "patient_id", "subject", "subject_id", "case", "case_id", "video", "video_id"})


def given_columns(items: Sequence[str]) -> dict[str, str]:
    """Parse the values of `--column FIELD=NAME`: field to column name.

    Raises:
        ValueError: a value has another form, or its field is unknown.
    """
    columns = {}
    for item in items:
        name, equals, column = item.partition("=")
        if not equals or name not in FIELDS:
            raise ValueError(f"--column {item}: write FIELD=NAME, with FIELD one of {', '.join(FIELDS)}")
        columns[name] = column
    return columns


def find_columns(
    path: str | Path,
    rows: Rows,
    given: Mapping[str, str] = MappingProxyType({}),
    needed: Sequence[str] = ("image", "question", "answer"),
) -> dict[str, str]:
    """Map fields to columns, for the fields that the table has.

    Args:
        path: the table, for messages.
        rows: the table.
        given: the columns named by `--column`, "" for none; the other fields are found by the names of the columns that
            are left.
        needed: required fields; the column "answers" can replace "answer".

    Raises:
        ValueError: a required column is missing; the message lists the columns of the table.
    """
    by_name: dict[str, str] = {}
    for column in rows.columns:
        by_name.setdefault(_plain(column), column)
    found = {}
    for name, wanted in given.items():
        column = wanted if wanted in rows.columns else by_name.get(_plain(wanted), "")
        if wanted and not column:
            raise ValueError(f"{path}: there is no column {wanted!r} for {name}{did_you_mean(wanted, rows.columns)}")
        if column:
            found[name] = column
    free = {alias: column for alias, column in by_name.items() if column not in found.values()}
    for name, aliases in FIELDS.items():
        alias = next((alias for alias in aliases if alias in free), None)
        if name not in given and alias is not None:
            found[name] = free[alias]
    missing = [name for name in needed if name not in found and not (name == "answer" and "answers" in found)]
    if missing:
        similar = nearest(missing[0], free.values())
        raise ValueError(
            f"{path}: there is no column for {' and '.join(missing)}; the table has "
            f"{', '.join(map(repr, rows.columns)) or 'no columns'}. "
            f"Name it, for example --column {missing[0]}={similar or 'NAME'}"
        )
    return {name: found[name] for name in FIELDS if name in found}


def unused_group(rows: Rows, columns: Mapping[str, str]) -> str | None:
    """A column like "patient" that could group the rows, if no group is given."""
    usual = (column for column in rows.columns if _plain(column) in _USUAL_GROUPS and column not in columns.values())
    return None if "group" in columns else next(usual, None)


def _plain(column: str) -> str:
    return "_".join(column.casefold().replace("-", " ").replace("_", " ").split())
