"""Result files: the answers of a model, to be scored here or sent to the evaluation server of a data set.

Ours is the official VQA one, with a confidence where the model has one:

    [{"question_id": 1, "answer": "yes", "confidence": 0.93}, ...]

The official VQA code asks each entry for the first two keys alone; Whitehead et al. 2022 (arXiv 2204.13631) add the
third to it in the same way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coattn._internal.files import atomic_path
from coattn.datasets.json_entries import Place, checked_id, checked_text, kind_of, read_json_file, type_name
from coattn.datasets.records import Record

_EXAMPLE = '[{"question_id": ..., "answer": ...}, ...]'


@dataclass(frozen=True, slots=True)
class Results:
    """What a model says of a split.

    Attributes:
        answers: the answer to each question, by question id.
        confidences: how sure the model is of each answer, in [0, 1], by question id; empty if it does not say.
        answerable: how likely each question can be answered at all, in [0, 1], by question id; empty if it does not
            say. Judged in VizWiz.
    """

    answers: Mapping[int | str, str]
    confidences: Mapping[int | str, float] = field(default_factory=dict)
    answerable: Mapping[int | str, float] = field(default_factory=dict)


def read_results(path: str | Path) -> Results:
    """Read a result file (`.json` or `.json.gz`).

    The entries of GQA's server ("questionId", "prediction") and of VizWiz's ("image", "answer", "answerable") are read
    too; an image's name is then the question's id.

    Raises:
        ValueError: the file is not of that form, answers a question twice, or has a confidence that is no number in
            [0, 1], or only some.
        OSError: the file cannot be read.
    """
    value = read_json_file(path)
    if not isinstance(value, list):
        raise ValueError(f"{path}: a result file is a list {_EXAMPLE}; {kind_of(value)}")
    answers: dict[int | str, str] = {}
    shares: dict[str, dict[int | str, float]] = {"confidence": {}, "answerable": {}}
    for index, result in enumerate(value):
        where = Place(path, "result", index, result)
        keys = result if isinstance(result, dict) else {}
        id_key = next((key for key in ("question_id", "questionId", "image") if key in keys), "question_id")
        question_id = checked_id(where.get(id_key), id_key, where)
        if question_id in answers:
            where.fail("this question_id appeared before; give one answer per question")
        answer_key = "prediction" if "prediction" in keys and "answer" not in keys else "answer"
        answers[question_id] = checked_text(where.get(answer_key), answer_key, where)
        for key, values in shares.items():
            if key in keys:
                values[question_id] = _share(result[key], key, where)
            if len(values) not in (0, len(answers)):
                have = "has" if key in keys else "has no"
                where.fail(f"{have} {key!r}, unlike those before it; give one to each result, or to none")
    return Results(answers, shares["confidence"], shares["answerable"])


def write_results(path: str | Path, results: Results, records: Sequence[Record], *, form: str = "vqa") -> None:
    """Write a result file as an evaluation server takes it, atomically.

    Args:
        path: where to.
        results: an answer to each record.
        records: the questions, in the order of their file.
        form: one of FORMS.

    Raises:
        ValueError: the form is unknown.
        OSError: the file cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"the form of a result file is {form!r}, must be one of {', '.join(FORMS)}")
    with atomic_path(path) as partial:
        partial.write_text(FORMS[form](results, records), encoding="utf-8")


def _vqa(results: Results, records: Iterable[Record]) -> str:
    """[{"question_id", "answer", "confidence"}, ...]: VQA v1 and v2, OK-VQA, and ours."""
    return _json({"question_id": record.question_id} | _answer(results, record.question_id) for record in records)


def _gqa(results: Results, records: Iterable[Record]) -> str:
    """[{"questionId", "prediction"}, ...]: GQA, with ids as text."""
    return _json(
        {"questionId": str(record.question_id), "prediction": results.answers[record.question_id]} for record in records
    )


def _clevr(results: Results, records: Iterable[Record]) -> str:
    """One answer per line, in the order of the questions: CLEVR."""
    return "".join(f"{results.answers[record.question_id]}\n" for record in records)


def _vizwiz(results: Results, records: Iterable[Record]) -> str:
    """[{"image", "answer", "answerable"}, ...]: VizWiz.

    "image" is the file's name: the record's extra "image", or its image id. The server wants "answerable" of each:
    where the results do not say it, 0.0 for the answer "unanswerable" and 1.0 for any other.
    """
    return _json(
        {
            "image": record.extra.get("image", record.image_id),
            "answer": (answer := results.answers[record.question_id]),
            "answerable": results.answerable.get(record.question_id, float(answer != "unanswerable")),
        }
        for record in records
    )


FORMS: dict[str, Callable[[Results, Iterable[Record]], str]] = {
    "vqa": _vqa,
    "gqa": _gqa,
    "clevr": _clevr,
    "vizwiz": _vizwiz,
}


def _answer(results: Results, question_id: int | str) -> dict[str, Any]:
    answer: dict[str, Any] = {"answer": results.answers[question_id]}
    return answer | {"confidence": round(results.confidences[question_id], 6)} if results.confidences else answer


def _json(entries: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(entries), ensure_ascii=False) + "\n"


def _share(value: Any, key: str, where: Place) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value <= 1):
        kind = "" if type(value) in (int, float) else f" ({type_name(value)})"
        where.fail(f"{key} is {value!r}{kind}, must be a number in [0, 1]")
    return float(value)
