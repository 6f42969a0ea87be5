"""One row of the user's table to a record."""

from __future__ import annotations

import ast
import json
import math
import reprlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coattn.datasets.image_files import ImageFolder
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.rows import Row

_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True, slots=True)
class RowReader:
    """Turns rows into records.

    Attributes:
        columns: field ("image", "question", ...) to column name, for the fields that the table has.
        folder: where the images are; None takes the image column as ids.
        first_place: where each split and question id was seen first.
    """

    columns: Mapping[str, str]
    folder: ImageFolder | None
    first_place: dict[tuple[str, str], str] = field(default_factory=dict)

    def read(self, row: Row, number: int) -> Record:
        """The record of a row.

        Raises:
            ValueError: the row is defective; the message says how, and leaves its place to the caller.
        """
        if row.problem:
            raise ValueError(row.problem)
        image, question = self._needed(row, "image"), self._needed(row, "question")
        image_id = image if self.folder is None else self.folder.find(image)
        several = self._answers(row)
        answer = self._text(row, "answer") if several else self._needed(row, "answer")
        split = self._split(row)
        question_id = self._question_id(row, number, split)
        used = set(self.columns.values())
        return Record(
            question_id=int(question_id) if _is_integer(question_id) else question_id,
            image_id=image_id,
            question=question,
            answers=several or (answer,),
            answer_type=self._text(row, "answer_type").lower() or answer_type_of(answer or several[0]),
            question_type=self._text(row, "question_type").lower(),
            split=split,
            multiple_choice_answer=answer if several else "",
            extra={name: value for name, value in row.cells.items() if name not in used and value not in ("", None)},
        )

    def _text(self, row: Row, name: str) -> str:
        return cell_text(row.cells.get(self.columns[name]), name) if name in self.columns else ""

    def _needed(self, row: Row, name: str) -> str:
        text = self._text(row, name)
        if not text:
            raise ValueError(f"the {name} is empty")
        return text

    def _answers(self, row: Row) -> tuple[str, ...]:
        if "answers" not in self.columns:
            return ()
        value = row.cells.get(self.columns["answers"])
        values = _as_list(value) if isinstance(value, str) else value
        texts = [cell_text(item, "answers") for item in (values if isinstance(values, list) else [values])]
        return tuple(text for text in texts if text)

    def _split(self, row: Row) -> str:
        if "split" not in self.columns:
            return ""
        name = self._needed(row, "split").lower()
        return _SPLITS.get(name, name)

    def _question_id(self, row: Row, number: int, split: str) -> str:
        if "question_id" not in self.columns:
            return str(number)
        question_id = self._needed(row, "question_id")
        first = self.first_place.setdefault((split, question_id), row.place)
        if first != row.place:
            raise ValueError(f"question_id {question_id!r} stands also in {first}")
        return question_id


def cell_text(value: Any, name: str) -> str:
    """A cell as text, accents with their letters; numbers of JSON as JSON writes them, null and NaN as nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"the {name} is {reprlib.repr(value)}, must be text or a number")
    return unicodedata.normalize("NFC", " ".join(str(value).split()))


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
