"""The official VQA v2 JSON files: the exchange format between data sets, training and scoring.

Only this module checks such files; all other code works with records. A pair of files:

    questions    {"info": {...}, "questions": [{"question_id", "image_id", "question"}, ...]}
    annotations  {"info": {...}, "annotations": [{"question_id", "image_id", "answers": [{"answer", "answer_id"}, ...],
                  "answer_type", "question_type", "multiple_choice_answer"}, ...]}

Source: https://visualqa.org/download.html (v2). Other keys are passed through. `info.metric` is an addition of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from coattn._internal.files import atomic_path
from coattn.datasets.bad_records import BadRecordError, BadRecords, LeftOut
from coattn.datasets.json_entries import (
    MAX_TEXT,
    File,
    JSONList,
    Place,
    checked_id,
    checked_text,
    read_json_list,
    type_name,
    without_collector,
)
from coattn.datasets.records import METRICS, Record, default_metric

UNFINISHED = "prepare.unfinished"  # the marker of a folder whose files are being replaced
_NAMED = "multiple_choice_answer"
_QUESTION_KEYS = frozenset({"question_id", "image_id", "question", "split", "multiple_choices"})
_ANNOTATION_KEYS = frozenset({"question_id", "image_id", "answers", "answer_type", "question_type", _NAMED, "split"})


@dataclass(frozen=True, slots=True)
class VQAData:
    """One split.

    Attributes:
        records: in the order of the questions.
        metric: the name of the metric that judges it, one of METRICS.
        info: the `info` of its files.
        num_without_ids: how many annotations have answers without "answer_id"; each such answer counts as that of
            another person.
    """

    records: list[Record]
    metric: str
    info: dict[str, Any]
    num_without_ids: int = 0


class Question(NamedTuple):
    """The checked fields of a question."""

    question_id: int | str
    image_id: int | str
    text: str
    split: str
    choices: tuple[str, ...]
    extra: dict[str, Any]


class Annotation(NamedTuple):
    """The checked fields of an annotation; a tuple takes a third of the memory of a dict."""

    question_id: int | str
    image_id: int | str | None
    answers: tuple[str, ...]
    voters: tuple[int, ...]
    answer_type: str
    question_type: str
    named: str
    extra: dict[str, Any]


_NO_ANNOTATION = Annotation("", None, (), (), "", "", "", {})


def read_vqa(
    questions_path: str | File,
    annotations_path: str | File | None,
    *,
    split: str = "",
    bare: bool = False,
    bad: BadRecords | None = None,
) -> VQAData:
    """Read a questions file and its annotations file (`.json` or `.json.gz`, also within a zip archive).

    Args:
        questions_path: the questions.
        annotations_path: their answers; None if they are unknown, so that the records' `answers` are empty.
        split: name of the split; by default the name that the questions state.
        bare: the files are the lists alone, as those of VQA-CP.
        bad: collects defective records, which are refused otherwise at the first one.

    Returns:
        The records in the order of the questions. The metric is `info.metric`; without it, the one that
        `records.default_metric` chooses by the number of answers.

    Raises:
        ValueError: a file is damaged or records are defective; the message names file, record and fix.
        OSError: a file cannot be read.
    """
    if isinstance(questions_path, (str, Path)) and (Path(questions_path).parent / UNFINISHED).exists():
        raise ValueError(f"{questions_path}: coattn prepare was interrupted while it wrote this folder; run it again")
    from coattn.datasets.fast_entries import decode_annotation, decode_question  # imports this module

    with without_collector():
        questions = read_json_list(questions_path, "" if bare else "questions", fast_decode=decode_question)
        annotations: dict[str, Annotation] = {}
        info, num_without_ids = _info(questions_path, questions), 0
        if annotations_path is not None:
            answers = read_json_list(annotations_path, "" if bare else "annotations", fast_decode=decode_annotation)
            _check_subset(questions_path, questions, annotations_path, answers)
            annotations, num_without_ids = _annotations_by_question(annotations_path, answers.entries, bad)
            info = {**info, **_info(annotations_path, answers)}
        records = _records(questions_path, questions.entries, annotations_path, annotations, split, bad)
    return VQAData(records, _metric(info, records, annotations_path or questions_path), info, num_without_ids)


def _records(
    questions_path: str | File,
    questions: Iterable[Any],
    annotations_path: str | File | None,
    annotations: dict[str, Annotation],
    split: str,
    bad: BadRecords | None,
) -> list[Record]:
    """One record per question; takes its annotation out of `annotations`."""
    records: list[Record] = []
    seen: set[str] = set()
    defects: list[LeftOut] = []
    index = -1
    for index, entry in enumerate(questions):
        where = Place(questions_path, "question", index, entry)
        try:
            question = entry if isinstance(entry, Question) else _question(entry, where)
            key = str(question.question_id)
            if key in seen:
                where.fail("this question_id appeared before; give every question its own")
            seen.add(key)
            annotation = _NO_ANNOTATION
            if annotations_path is not None:
                annotation = _matching(annotations.pop(key, None), question, where, annotations_path)
        except BadRecordError as error:
            if bad is None:
                raise
            defects.append(error.left_out)
            annotations.pop(str(where.question_id), None)
            continue
        records.append(
            Record(
                question.question_id,
                question.image_id,
                question.text,
                annotation.answers,
                annotation.answer_type,
                annotation.question_type,
                split or question.split,
                question.choices,
                annotation.named,
                annotation.voters,
                question.extra | annotation.extra,
            )
        )
    if annotations:
        example = next(iter(annotations.values())).question_id
        problem = (
            f"{len(annotations)} of its annotations have no question in {questions_path}, for example question_id "
        )
        unasked = LeftOut(str(annotations_path), f"{problem}{example!r}; pair the files of the same split")
        if bad is None:
            raise ValueError(str(unasked))
        defects.append(unasked)
    if bad is not None:
        bad.refuse_or_leave_out(questions_path, defects, index + 1)
        if not records:
            raise ValueError(f"{questions_path}: no usable question is in this file")
    return records


def _matching(
    annotation: Annotation | None, question: Question, where: Place, annotations_path: str | File
) -> Annotation:
    """The annotation of a question, which must exist and be about the same image."""
    if annotation is None:
        where.fail(f"has no annotation in {annotations_path}; add it, or remove the question")
    if annotation.image_id is not None and str(annotation.image_id) != str(question.image_id):
        where.fail(
            f"is about image {question.image_id!r}, but its annotation in {annotations_path} about image "
            f"{annotation.image_id!r}; pair the files of the same split, or correct one image_id"
        )
    return annotation


def write_vqa(folder: str | Path, split: str, records: Sequence[Record], *, info: Mapping[str, Any]) -> list[Path]:
    """Write `{split}_questions.json` and, where the answers are known, `{split}_annotations.json`.

    Args:
        folder: the folder to write to; it is made if absent.
        split: the split's name.
        records: all with answers, or all without.
        info: the value of "info" in both files; it holds "metric".

    Returns:
        The files written.

    Raises:
        ValueError: some records have answers and others not.
    """
    if info.get("metric") not in METRICS:
        raise ValueError(f"info['metric'] is {info.get('metric')!r}, must be one of {', '.join(METRICS)}")
    unanswered = [record.question_id for record in records if not record.answers]
    if unanswered and len(unanswered) < len(records):
        raise ValueError(
            f"split {split!r}: {len(unanswered)} of {len(records)} questions have no answer, for example question_id "
            f"{unanswered[0]!r}; a split has answers for all of its questions or for none"
        )
    files = [Path(folder) / f"{split}_questions.json"]
    _write_list(files[0], "questions", info, map(_question_entry, records))
    if not unanswered:
        files.append(Path(folder) / f"{split}_annotations.json")
        _write_list(files[1], "annotations", info, map(_annotation_entry, records))
    return files


def _info(path: str | File, file: JSONList) -> dict[str, Any]:
    info = file.head.get("info")
    if info in (None, ""):  # some files have an empty text
        return {}
    if not isinstance(info, dict):
        raise ValueError(f'{path}: "info" is {type_name(info)}, must be an object')
    return info


def _check_subset(
    questions_path: str | File, questions: JSONList, annotations_path: str | File, answers: JSONList
) -> None:
    """Refuse a pair of files that name different splits, for example "train2014" and "val2014"."""
    named = [file.head.get("data_subtype") for file in (questions, answers)]
    if all(named) and named[0] != named[1]:
        raise ValueError(
            f"{questions_path} is of {named[0]}, {annotations_path} of {named[1]}; pair the files of the same split"
        )


def _metric(info: Mapping[str, Any], records: Sequence[Record], path: str | File) -> str:
    if "metric" not in info:
        return default_metric(records, several="vqa_accuracy")
    if info["metric"] not in METRICS:
        raise ValueError(f"{path}: info.metric is {info['metric']!r}, must be one of {', '.join(METRICS)}")
    return info["metric"]


def _question(entry: Any, where: Place) -> Question:
    text = checked_text(where.get("question"), "question", where)
    if not text.strip():
        where.fail("the question is empty; write its text, or remove it with its annotation")
    choices = entry.get("multiple_choices", ())
    if not isinstance(choices, list | tuple):
        where.fail(f"multiple_choices is {type_name(choices)}, must be a list of texts")
    return Question(
        checked_id(where.get("question_id"), "question_id", where),
        checked_id(where.get("image_id"), "image_id", where),
        text,
        checked_text(entry.get("split", ""), "split", where),
        tuple([checked_text(choice, "a choice", where) for choice in choices]),
        {key: entry[key] for key in entry.keys() - _QUESTION_KEYS},
    )


def _annotations_by_question(
    path: str | File, entries: Iterable[Any], bad: BadRecords | None
) -> tuple[dict[str, Annotation], int]:
    """Each annotation by its question id as text, and how many have answers without an id.

    Equal texts are kept once.
    """
    by_question: dict[str, Annotation] = {}
    num_without_ids = 0
    defects: list[LeftOut] = []
    index = -1
    for index, entry in enumerate(entries):
        try:
            is_decoded = isinstance(entry, Annotation)
            annotation = entry if is_decoded else _annotation(entry, Place(path, "annotation", index, entry))
            key = str(annotation.question_id)
            if key in by_question:
                where = Place(path, "annotation", index, {"question_id": annotation.question_id})
                where.fail("this question_id appeared before; give every question one annotation")
        except BadRecordError as error:
            if bad is None:
                raise
            defects.append(error.left_out)
            continue
        num_without_ids += not is_decoded and not any("answer_id" in answer for answer in entry["answers"])
        by_question[key] = annotation
    if bad is not None:
        bad.refuse_or_leave_out(path, defects, index + 1)
    return by_question, num_without_ids


def _annotation(entry: Any, where: Place) -> Annotation:
    question_id = checked_id(where.get("question_id"), "question_id", where)
    answers = where.get("answers")
    if not isinstance(answers, list):
        where.fail(f"answers is {type_name(answers)}, must be a list of objects with the key 'answer'")
    if not answers:
        where.fail("answers is empty; give at least one, or remove the question and its annotation")
    return Annotation(
        question_id,
        # Some copies of the official files leave it out.
        checked_id(entry["image_id"], "image_id", where) if "image_id" in entry else None,
        tuple(map(intern, _answer_texts(answers, where))),
        _voters(answers),
        intern(checked_text(entry.get("answer_type", ""), "answer_type", where)),
        intern(checked_text(entry.get("question_type", ""), "question_type", where)),
        intern(checked_text(entry.get(_NAMED, ""), _NAMED, where)),
        {key: entry[key] for key in entry.keys() - _ANNOTATION_KEYS},
    )


def _answer_texts(answers: list[Any], where: Place) -> list[str]:
    try:
        texts = [answer["answer"] for answer in answers]
        together = "".join(texts)
        if together.isascii() and len(together) <= MAX_TEXT:  # then each of them is right
            return texts
    except (TypeError, LookupError):
        pass
    for answer in answers:
        if type(answer) is not dict or type(answer.get("answer")) is not str:
            where.fail(f'an answer is {answer!r}, must be an object like {{"answer": "yes"}} whose answer is text')
        checked_text(answer["answer"], "an answer", where)
    return texts


def _voters(answers: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """One number per answer, equal for entries that differ in their text only; empty if no two are equal."""
    ids = [answer.get("answer_id") for answer in answers]
    if set(map(type, ids)) == {int} and len(set(ids)) == len(ids):
        return ()
    if not any("answer_id" in answer for answer in answers):
        return ()
    rests = [{**answer, "answer": None} for answer in answers]
    return tuple(rests.index(rest) + 1 for rest in rests)


def _question_entry(record: Record) -> dict[str, Any]:
    choices = {"multiple_choices": list(record.choices)} if record.choices else {}
    ids = {"question_id": record.question_id, "image_id": record.image_id}
    extra = {key: value for key, value in record.extra.items() if key not in _QUESTION_KEYS}  # not to be misread
    return {**extra, **ids, "question": record.question, **choices}


def _annotation_entry(record: Record) -> dict[str, Any]:
    return {
        "question_id": record.question_id,
        "image_id": record.image_id,
        "question_type": record.question_type,
        "answer_type": record.answer_type,
        "multiple_choice_answer": record.answer,
        "answers": record.answer_entries(),
    }


def _write_list(path: Path, key: str, info: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write one entry per line, streamed, so that a large data set is not in memory twice."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(b'{"info": ' + encode(dict(info)) + f',\n"{key}": ['.encode())
        for index, entry in enumerate(entries):
            file.write((b",\n" if index else b"\n") + encode(entry))
        file.write(b"\n]}\n")
