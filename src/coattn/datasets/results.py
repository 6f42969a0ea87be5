"""Result files: the answers of a model, to be scored here or sent to the evaluation server of a data set.

Ours is the official VQA one, with a confidence where the model has one, and with doubts where it was asked for them:

    [{"question_id": 1, "answer": "yes", "confidence": 0.93,
      "withheld": false, "reasons": [], "unknown_words": []}, ...]

The official VQA code reads the first two keys of each entry; Whitehead et al. 2022 (arXiv 2204.13631) add the third to
it in the same way. The others are those of `coattn ask --json`, except that a withheld answer is kept, to be scored.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coattn._internal.files import atomic_path, parse_json
from coattn.datasets.doubt import Doubt
from coattn.datasets.json_entries import (
    Place,
    checked_id,
    checked_text,
    describe_value,
    read_bytes,
    read_json_file,
    type_name,
)
from coattn.datasets.records import Record
from coattn.datasets.rows import read_rows

_EXAMPLE = '[{"question_id": ..., "answer": ...}, ...]'
_ID_KEYS = ("question_id", "questionId", "image")  # ours and VQA's, GQA's, VizWiz's
_ANSWER_KEYS = ("answer", "prediction", "text")  # ours and VQA's, GQA's, LLaVA's
_A_OKVQA_KEYS = ("direct_answer", "multiple_choice")
# The columns of a table that are read, and how; the inverse of `_csv`.
_TABLE_CELLS: dict[str, Callable[[Any], Any]] = {
    "question_id": lambda cell: cell,
    "answer": str,
    "confidence": float,
    "withheld": {"yes": True, "no": False}.__getitem__,
    "reasons": lambda cell: [cell] if cell else [],
    "unknown_words": lambda cell: cell.split(", ") if cell else [],
}


@dataclass(frozen=True, slots=True)
class Results:
    """The answers of a model to a split.

    Attributes:
        answers: the answer to each question, by question id; "" throughout if the file only says what is answerable.
        confidences: the model's confidence in each answer, in [0, 1], by question id; empty if it has none.
        answerable: the probability that each question can be answered at all, in [0, 1], by question id; empty if the
            model has none. Judged in VizWiz.
        chosen: the choice for each question, by question id, where a file holds choices beside the answers (A-OKVQA).
        doubts: the doubts about each answer, by question id; empty if the model was not asked for them.
    """

    answers: Mapping[int | str, str]
    confidences: Mapping[int | str, float] = field(default_factory=dict)
    answerable: Mapping[int | str, float] = field(default_factory=dict)
    chosen: Mapping[int | str, str] = field(default_factory=dict)
    doubts: Mapping[int | str, Doubt] = field(default_factory=dict)


def read_results(path: str | Path, records: Sequence[Record] = ()) -> Results:
    """Read a result file of any of these forms; JSON may be gzipped (`.json.gz`).

    - a list of objects: ours and VQA's ("question_id", "answer"), GQA's ("questionId", "prediction"), VizWiz's
      ("image", "answer", "answerable"), and VizWiz's without answers; an image's name means the question about it;
    - an object by question id: of answers, or A-OKVQA's {"direct_answer": ..., "multiple_choice": ...};
    - `.jsonl`: one object per line, LLaVA's ("question_id", "text") or any of the above;
    - `.txt`: one answer per line in the order of the questions, CLEVR's;
    - `.csv`: a table with the columns question_id and answer, as `write_results` makes it. Its reasons are one text.

    Args:
        path: the file.
        records: the questions in the order of their file. A `.txt` and a `.csv` need them, and names of images where
            those are not the ids of the questions.

    Raises:
        ValueError: the file has none of these forms, answers a question twice, or has a confidence that is not a number
            in [0, 1], or only some, or a doubt that is not of the form above.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".txt":
        return Results(_lines_by_question(path, records))
    if path.suffix == ".jsonl":
        return _from_entries(path, _json_lines(path), records)
    if path.suffix == ".csv":
        return _from_entries(path, _table_entries(path, records), records)
    value = read_json_file(path)
    if isinstance(value, dict) and value and all(isinstance(entry, (str, dict)) for entry in value.values()):
        return _from_object(path, value)
    if not isinstance(value, list):
        raise ValueError(f"{path}: a result file is a list {_EXAMPLE}; {describe_value(value)}")
    return _from_entries(path, value, records)


def _from_entries(path: Path, entries: Iterable[Any], records: Sequence[Record]) -> Results:
    """Results of a list of objects, whichever keys they have."""
    by_image = {str(_image_name(record)): record.question_id for record in records}
    answers: dict[int | str, str] = {}
    shares: dict[str, dict[int | str, float]] = {"confidence": {}, "answerable": {}}
    doubts: dict[int | str, Doubt] = {}
    without_answers: bool | None = None
    for index, result in enumerate(entries):
        where = Place(path, "result", index, result)
        keys = result if isinstance(result, dict) else {}
        id_key = next((key for key in _ID_KEYS if key in keys), "question_id")
        question_id = checked_id(where.get(id_key), id_key, where)
        if id_key == "image":
            question_id = by_image.get(str(question_id), question_id)
        if question_id in answers:
            where.fail(f"this {id_key} appeared before; give one answer per question")
        answer_key = next((key for key in _ANSWER_KEYS if key in keys), "answer")
        if without_answers is None:
            without_answers = "answerable" in keys and answer_key not in keys
        answers[question_id] = "" if without_answers else checked_text(where.get(answer_key), answer_key, where)
        if any(key in keys for key in Doubt._fields):
            doubts[question_id] = _doubt(keys, where)
        for key, values in shares.items():
            if key in keys:
                values[question_id] = _share(result[key], key, where)
            if len(values) not in (0, len(answers)):
                have = "has" if key in keys else "has no"
                where.fail(f"{have} {key!r}, unlike those before it; give one to each result, or to none")
    return Results(answers, shares["confidence"], shares["answerable"], doubts=doubts)


def _from_object(path: Path, value: Mapping[str, Any]) -> Results:
    """Results of an object by question id: texts, or objects with a direct answer, a choice or both."""
    answers: dict[int | str, str] = {}
    chosen: dict[int | str, str] = {}
    for index, (question_id, entry) in enumerate(value.items()):
        where = Place(path, "result", index, {"question_id": question_id})
        given = {"direct_answer": entry} if isinstance(entry, str) else entry
        found = {key: checked_text(given[key], key, where) for key in _A_OKVQA_KEYS if key in given}
        if not found:
            where.fail(f"is {str(entry)[:60]}, must be a text or an object with {' or '.join(_A_OKVQA_KEYS)}")
        answers[question_id] = found.get("direct_answer", found.get("multiple_choice", ""))
        if "multiple_choice" in found:
            chosen[question_id] = found["multiple_choice"]
    if chosen and len(chosen) < len(answers):
        raise ValueError(
            f"{path}: {len(chosen)} of {len(answers)} results have a multiple_choice; give it to all or none"
        )
    return Results(answers, chosen=chosen)


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        if line.strip():
            yield parse_json(line, f"{path}: line {number}")


def _table_entries(path: Path, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """The rows of a table as the objects of a JSON list."""
    table = read_rows(path)
    if missing := [name for name in ("question_id", "answer") if name not in table.columns]:
        raise ValueError(
            f"{path}: a table of results has the columns question_id and answer, and this one has no {missing[0]}; "
            "`coattn predict --output results.json` writes a result file"
        )
    ids = {str(record.question_id): record.question_id for record in records}
    for row in table.rows:
        if row.problem:
            raise ValueError(f"{path}: {row.place}: {row.problem}")
        cells = {name: row.cells.get(name, "") for name in table.columns if name in _TABLE_CELLS}
        cells["question_id"] = ids.get(cells["question_id"], cells["question_id"])
        try:
            yield {name: _TABLE_CELLS[name](cell) for name, cell in cells.items()}
        except (ValueError, KeyError):
            raise ValueError(
                f"{path}: {row.place}: confidence must be a number and withheld yes or no, got {cells}"
            ) from None


def _lines_by_question(path: Path, records: Sequence[Record]) -> dict[int | str, str]:
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; convert the file") from None
    if len(lines) != len(records):
        raise ValueError(
            f"{path}: {len(lines)} lines for {len(records)} questions; a text file has one answer per line, in the "
            "order of the questions"
        )
    return {record.question_id: line.strip() for record, line in zip(records, lines, strict=True)}


def write_results(path: str | Path, results: Results, records: Sequence[Record], *, form: str = "vqa") -> None:
    """Write a result file as an evaluation server accepts it, or a table for people ("csv"), atomically.

    `read_results` reads all of these forms.

    Args:
        path: the file.
        results: an answer to each record.
        records: the questions, in the order of their file.
        form: one of FORMS.

    Raises:
        ValueError: the form is unknown.
        OSError: the file cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"the form of a result file is {form!r}, must be one of {', '.join(FORMS)}")
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.writelines(FORMS[form](results, records))


def _vqa(results: Results, records: Iterable[Record]) -> Iterator[str]:
    """[{"question_id", "answer", "confidence", ...}, ...]: VQA v1 and v2, OK-VQA, and ours."""
    return _json({"question_id": record.question_id} | _answer(results, record.question_id) for record in records)


def _gqa(results: Results, records: Iterable[Record]) -> Iterator[str]:
    """[{"questionId", "prediction"}, ...]: GQA, with ids as text."""
    return _json(
        {"questionId": str(record.question_id), "prediction": results.answers[record.question_id]} for record in records
    )


def _clevr(results: Results, records: Iterable[Record]) -> Iterator[str]:
    """One answer per line, in the order of the questions: CLEVR."""
    return (f"{results.answers[record.question_id]}\n" for record in records)


def _image_name(record: Record) -> Any:
    """The name of a question's image in VizWiz's files."""
    return record.extra.get("image", record.image_id)


def _vizwiz(results: Results, records: Iterable[Record]) -> Iterator[str]:
    """[{"image", "answer", "answerable"}, ...]: VizWiz.

    "image" is the file's name: the record's extra "image", or its image id. The server needs "answerable" of each:
    where the results have none, it is 0.0 for the answer "unanswerable" and 1.0 for any other.
    """
    return _json(
        {
            "image": _image_name(record),
            "answer": (answer := results.answers[record.question_id]),
            "answerable": results.answerable.get(record.question_id, float(answer != "unanswerable")),
        }
        for record in records
    )


def _csv(results: Results, records: Iterable[Record]) -> Iterator[str]:
    """A table for people: the question, the answer, its confidence and its doubts."""
    table = io.StringIO()
    writer = csv.writer(table)
    columns = ["answer", *(["confidence"] if results.confidences else []), *(Doubt._fields if results.doubts else ())]
    writer.writerow(["question_id", "image_id", "question", *columns])
    for record in records:
        cells = _answer(results, record.question_id)
        if results.doubts:
            doubt = results.doubts[record.question_id]
            cells |= {
                "withheld": "yes" if doubt.withheld else "no",
                "reasons": " ".join(doubt.reasons),
                "unknown_words": ", ".join(doubt.unknown_words),
            }
        writer.writerow([record.question_id, record.image_id, record.question, *cells.values()])
        yield table.getvalue()
        table.seek(0)
        table.truncate()
    yield table.getvalue()  # the header of a table without rows


FORMS: dict[str, Callable[[Results, Iterable[Record]], Iterator[str]]] = {
    "vqa": _vqa,
    "gqa": _gqa,
    "clevr": _clevr,
    "vizwiz": _vizwiz,
    "csv": _csv,
}


def _answer(results: Results, question_id: int | str) -> dict[str, Any]:
    answer: dict[str, Any] = {"answer": results.answers[question_id]}
    if results.confidences:
        answer["confidence"] = round(results.confidences[question_id], 6)
    return answer | results.doubts[question_id]._asdict() if results.doubts else answer


def _json(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The text of a JSON list in parts: as a whole, millions of entries would take gigabytes."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    yield "["
    for number, entry in enumerate(entries):
        yield (", " if number else "") + encode(entry)
    yield "]\n"


def _doubt(entry: Mapping[str, Any], where: Place) -> Doubt:
    """The doubts of one result; keys that it lacks mean that there are none."""
    withheld = entry.get("withheld", False)
    if not isinstance(withheld, bool):
        where.fail(f"withheld is {withheld!r}, must be true or false")
    texts = []
    for key in ("reasons", "unknown_words"):
        listed = entry.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            where.fail(f"{key} is {str(listed)[:60]}, must be a list of texts")
        texts.append(tuple(listed))
    return Doubt(withheld, *texts)


def _share(value: Any, key: str, where: Place) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value <= 1):
        kind = "" if type(value) in (int, float) else f" ({type_name(value)})"
        where.fail(f"{key} is {value!r}{kind}, must be a number in [0, 1]")
    return float(value)


def default_name(split: str, form: str) -> str:
    """The file name for the results of a split: "test.json" in the form "vqa", "test.gqa.json" in the form "gqa"."""
    return {"vqa": f"{split}.json", "csv": f"{split}.csv", "clevr": f"{split}.clevr.txt"}.get(
        form, f"{split}.{form}.json"
    )
