"""VizWiz, TextVQA and A-OKVQA: photos with ten answers each, as one JSON list of questions per split.

Sources: VizWiz (https://vizwiz.org/tasks-and-datasets/vqa, Gurari et al. 2018, arXiv 1802.08218): train.json, val.json,
test.json. TextVQA (https://textvqa.org, Singh et al. 2019, arXiv 1904.08920): TextVQA_0.5.1_train.json, ... A-OKVQA
(https://github.com/allenai/aokvqa, Schwenk et al. 2022, arXiv 2206.01718): aokvqa_v1p0_train.json, ... Written from the
published formats; not checked on real files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from sys import intern
from typing import Any

from coattn.datasets.json_entries import Place, read_json_list, type_name
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, coco_names, identifier, rest, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record

_SPLITS = ("train", "val", "test")


def read_vizwiz(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read VizWiz: one question per photo, named by its file ("VizWiz_train_00000000.jpg"), as the server asks for it.

    `answerable` (0 or 1) stays in `extra`, `answer_type` is the data set's ("unanswerable", "other", "yes/no",
    "number"). Test has no answers.

    Raises:
        ValueError: a file is missing or not what it should be; the message names file and question.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    splits = _splits(found, "{}.json", "", _vizwiz)
    notes = ["score with coattn score --metric vizwiz"]
    return found.dataset("vizwiz", splits, metric="vqa_accuracy", images=images, notes=notes)


def read_textvqa(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read TextVQA: questions whose answer is written in the photo. Test has no answers.

    What the files say of the photos (size, classes, addresses) stays in `extra`.

    Raises:
        ValueError, OSError: as `read_vizwiz`.
    """
    found = PublishedFiles(files)
    splits = _splits(found, "TextVQA_0.5.1_{}.json", "data", _textvqa)
    return found.dataset("textvqa", splits, metric="textvqa", images=images)


def read_a_okvqa(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read A-OKVQA: ten direct answers, and four `choices` of which `multiple_choice_answer` is the right one.

    Rationales and `difficult_direct_answer` stay in `extra`. Test has no answers.

    Raises:
        ValueError, OSError: as `read_vizwiz`.
    """
    found = PublishedFiles(files)
    splits = _splits(found, "aokvqa_v1p0_{}.json", "", _a_okvqa)
    return found.dataset(
        "a-okvqa",
        splits,
        metric="vqa_accuracy",
        images=images,
        image_names=coco_names,
        notes=["score direct answers and choices with coattn score --metric a_okvqa, as the authors do"],
    )


def _splits(
    found: PublishedFiles, name: str, key: str, record: Callable[[Place, str], Record]
) -> dict[str, list[Record]]:
    splits = {}
    for split, file in found.splits({split: name.format(split) for split in _SPLITS}).items():
        entries = enumerate(read_json_list(file, key).entries)
        places = (Place(file, "question", index, entry) for index, entry in entries)
        splits[split] = found.distinct((where, record(where, split)) for where in places)
    return splits


def _vizwiz(where: Place, split: str) -> Record:
    image, question = texts(where, "image", "question")
    answers = () if split == "test" else _answers(where, "answers", lambda answer: answer["answer"])
    return Record(
        question_id=image,
        image_id=image,
        question=question,
        answers=answers,
        answer_type=str(where.entry.get("answer_type", "")),
        split=split,
        extra=rest(where.entry, "image", "question", "answers", "answer_type"),
    )


def _textvqa(where: Place, split: str) -> Record:
    (question,) = texts(where, "question")
    return Record(
        question_id=identifier(where, "question_id"),
        image_id=identifier(where, "image_id"),
        question=question,
        answers=() if split == "test" else _answers(where, "answers", str),
        split=split,
        extra=rest(where.entry, "question", "question_id", "image_id", "answers", "question_tokens", "set_name"),
    )


def _a_okvqa(where: Place, split: str) -> Record:
    (question,) = texts(where, "question")
    choices, right = where.get("choices"), where.entry.get("correct_choice_idx")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        where.fail(f"choices is {type_name(choices)}, must be a list of texts")
    if split != "test" and (type(right) is not int or not 0 <= right < len(choices)):
        where.fail(f"correct_choice_idx is {right!r}, must number one of the {len(choices)} choices from 0")
    return Record(
        question_id=identifier(where, "question_id"),
        image_id=identifier(where, "image_id"),
        question=question,
        answers=() if split == "test" else _answers(where, "direct_answers", str),
        split=split,
        choices=tuple(choices),
        multiple_choice_answer="" if split == "test" else choices[right],
        extra={key: where.entry[key] for key in ("difficult_direct_answer", "rationales") if key in where.entry},
    )


def _answers(where: Place, key: str, read: Callable[[Any], Any]) -> tuple[str, ...]:
    answers = where.get(key)
    if not isinstance(answers, list) or not answers:
        where.fail(
            f"{key} is {answers if answers == [] else type_name(answers)}, must be a list with an answer or more"
        )
    try:
        return tuple([intern(read(answer)) for answer in answers])
    except (TypeError, KeyError):
        where.fail(f"{key} has something else than answers: {str(answers)[:80]}")


READERS = {
    "vizwiz": published_reader(
        """\
VizWiz, from the authors' train.json, val.json, test.json (Annotations.zip, or unpacked)

  coattn prepare vizwiz VIZWIZ_FOLDER data/vizwiz --images VIZWIZ_FOLDER""",
        read_vizwiz,
    ),
    "textvqa": published_reader(
        """\
TextVQA's questions, from the authors' TextVQA_0.5.1_train.json ... (without the text that OCR finds)

  coattn prepare textvqa TEXTVQA_FOLDER data/textvqa --images TEXTVQA_FOLDER""",
        read_textvqa,
    ),
    "a-okvqa": published_reader(
        """\
A-OKVQA, direct answers and choices, from the authors' aokvqa_v1p0_train.json ...

  coattn prepare a-okvqa A_OKVQA_FOLDER data/a_okvqa --images COCO_FOLDER""",
        read_a_okvqa,
    ),
}
