"""Turn a row of a user's table into a record."""

from __future__ import annotations

import ast
import json
import math
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coattn.datasets.bad_records import BadRecordError
from coattn.datasets.image_files import ImageFolder
from coattn.datasets.json_entries import MAX_TEXT
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.rows import Row

_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True, slots=True)
class RowReader:
    """Turns rows into records.

    Attributes:
        columns: field ("image", "question", ...) to column name, for the fields that the table has.
        folder: the folder of the images; None takes the image column as ids.
        unanswered: the splits without any answer; see `unanswered_splits`.
        ids_per_image: the question ids are unique for each image only; see `ids_repeat_per_image`.
    """

    columns: Mapping[str, str]
    folder: ImageFolder | None = None
    unanswered: frozenset[str] = frozenset()
    ids_per_image: bool = False

    def read(self, row: Row) -> Record:
        """The record of a row.

        Raises:
            BadRecordError: the row is defective.
        """
        try:
            return self._read(row)
        except ValueError as error:
            raise BadRecordError(row.place, str(error)) from None

    def _read(self, row: Row) -> Record:
        if row.problem:
            raise ValueError(row.problem)
        image, question = self._needed(row, "image"), self._needed(row, "question")
        image_id = image if self.folder is None else self.folder.find(image)
        several, split = self._answers(row), _split(row, self.columns)
        if "split" in self.columns and not split:
            raise ValueError("the split is empty; write train, val or test")
        answer = self._text(row, "answer") if several or split in self.unanswered else self._needed(row, "answer")
        answers = several or ((answer,) if answer else ())
        used = set(self.columns.values())
        extra = {name: value for name, value in row.cells.items() if name not in used and value not in ("", None)}
        if group := self._text(row, "group"):
            extra["group"] = group
        return Record(
            question_id=self._question_id(row, image),
            image_id=image_id,
            question=question,
            answers=answers,
            answer_type=self._text(row, "answer_type").lower()
            or (answer_type_of(answer or answers[0]) if answers else ""),
            question_type=self._text(row, "question_type").lower(),
            split=split,
            multiple_choice_answer=answer if several else "",
            extra=extra,
        )

    def _text(self, row: Row, name: str) -> str:
        return _text(row, name, self.columns)

    def _needed(self, row: Row, name: str) -> str:
        text = self._text(row, name)
        if not text:
            column = self.columns[name]
            raise ValueError(
                f"the {name} is empty"
                if column in row.cells
                else f"the {name} is missing: no value for column {column!r}"
            )
        return text

    def _answers(self, row: Row) -> tuple[str, ...]:
        if "answers" not in self.columns:
            return ()
        texts = [cell_text(item, "answer") for item in _as_list(row.cells.get(self.columns["answers"]))]
        return tuple(text for text in texts if text)

    def _question_id(self, row: Row, image: str) -> int | str:
        if "question_id" not in self.columns:
            return row.number
        question_id = self._needed(row, "question_id")
        if self.ids_per_image:
            return f"{image}/{question_id}"
        return int(question_id) if _is_integer(question_id) else question_id


def unanswered_splits(rows: Sequence[Row], columns: Mapping[str, str]) -> frozenset[str]:
    """The splits, other than train, in which no row has an answer, as in published test sets."""
    answered: dict[str, bool] = {}
    names = [columns[name] for name in ("answer", "answers") if name in columns]
    for row in rows:
        try:
            split = _split(row, columns)
        except ValueError:  # reported when the row is read
            continue
        answered[split] = answered.get(split, False) or any(row.cells.get(name) not in (None, "", []) for name in names)
    return frozenset(split for split, known in answered.items() if not known and split not in ("", "train"))


def ids_repeat_per_image(rows: Sequence[Row], columns: Mapping[str, str]) -> bool:
    """Whether question ids are numbered for each image or video, as in EgoTextVQA.

    Then images have several questions and most ids repeat, but never for one image.
    """
    if "question_id" not in columns:
        return False
    fields = [columns[name] for name in ("image", "question_id", "split") if name in columns]
    keys = [tuple(str(row.cells.get(column)) for column in fields) for row in rows]
    ids = Counter(key[1:] for key in keys)
    repeated = sum(count for count in ids.values() if count > 1)
    several = any(count > 1 for count in Counter(key[0] for key in keys).values())
    return several and 2 * repeated > len(keys) and len(set(keys)) == len(keys)


def _text(row: Row, name: str, columns: Mapping[str, str]) -> str:
    return cell_text(row.cells.get(columns[name]), name) if name in columns else ""


def _split(row: Row, columns: Mapping[str, str]) -> str:
    """The split of a row by its usual name; "" if it is empty or there is no split column."""
    name = _text(row, "split", columns).lower()
    return _SPLITS.get(name, name)


def cell_text(value: Any, name: str) -> str:
    """A cell as text with composed accents; numbers as JSON writes them, null and NaN as "".

    Raises:
        ValueError: the cell is a list, an object or a boolean, or has more than `MAX_TEXT` characters.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"the {name} is {reprlib.repr(value)}, must be text or a number")
    text = unicodedata.normalize("NFC", " ".join(str(value).split()))
    if len(text) > MAX_TEXT:
        raise ValueError(f"the {name} has {len(text)} characters, at most {MAX_TEXT} are read; shorten it")
    return text


def _as_list(value: Any) -> list[Any]:
    """Several answers of one cell: a list of texts, or of objects as in VQA v2, or an object of lists; or its text.

    A text is a JSON list, a Python list as pandas writes it, or texts separated by |.
    """
    if isinstance(value, str):
        value = _parsed(value.strip()) if value.strip()[:1] in ("[", "{") else value.split("|")
    if isinstance(value, dict) and isinstance(value.get("answer"), list):
        return value["answer"]
    if isinstance(value, list):
        return [item["answer"] if isinstance(item, dict) and "answer" in item else item for item in value]
    return [value]


def _parsed(text: str) -> Any:
    """The list or dict that a text spells in JSON or in Python; the texts separated by | if it spells none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | dict):
            return value
    return text.split("|")


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and text == str(int(text))
