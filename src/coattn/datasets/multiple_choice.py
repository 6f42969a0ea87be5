"""ScienceQA and Visual7W: questions with the answers to choose from.

Sources: ScienceQA (https://github.com/lupantech/ScienceQA, Lu et al. 2022, arXiv 2209.09513): problems.json. Visual7W
telling (https://github.com/yukezhu/visual7w-toolkit, Zhu et al. 2016, arXiv 1511.03416): dataset_v7w_telling.json, or
dataset.json in the toolkit's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from coattn.datasets.bad_records import UnusableRecordError
from coattn.datasets.json_entries import File, Place, checked_text, type_name
from coattn.datasets.published import answer_text, identifier, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, json_list, json_object, read_format

_SCIENCE_KEPT = ("hint", "task", "grade", "topic", "category", "skill", "lecture", "solution")


def _science_qa(where: Place, split: str) -> Record:
    """Images are named by their place ("train/1/image"); `question_type` is the subject.

    Questions without an image are left out.
    """
    (question,) = texts(where, "question")
    if not where.fields.get("image"):
        raise UnusableRecordError(where, "the question has no image")
    choices, right = _choices(where, where.get("choices")), where.get("answer")
    if type(right) is not int or not 0 <= right < len(choices):
        where.fail(f"answer is {right!r}, must number one of the {len(choices)} choices from 0")
    image, official = texts(where, "image", "split")
    return Record(
        question_id=where.key,
        image_id=f"{official}/{where.key}/{image.rpartition('.')[0]}",
        question=question,
        answers=(choices[right],),
        answer_type=answer_type_of(choices[right]),
        question_type=str(where.fields.get("subject", "")),
        split=official,
        choices=choices,
        multiple_choice_answer=choices[right],
        extra={key: where.fields[key] for key in _SCIENCE_KEPT if where.fields.get(key)},
    )


def _visual7w_entries(file: File) -> Iterator[Place]:
    for image in json_list(file, "images"):
        pairs = image.get("qa_pairs")
        if not isinstance(pairs, list):
            image.fail(f"qa_pairs is {type_name(pairs)}, must be a list of questions")
        for number, pair in enumerate(pairs):
            entry = pair if isinstance(pair, dict) else {}
            whole = {**entry, "filename": image.get("filename"), "split": image.get("split")}
            yield Place(file, f"image {image.index}, question", number, whole)


def _visual7w(where: Place, split: str) -> Record:
    """Four choices, the right one first; `question_type` is the first word ("what", "where" ...)."""
    question, image, official = texts(where, "question", "filename", "split")
    answer = answer_text(where)
    wrong = _choices(where, where.get("multiple_choices"))
    return Record(
        question_id=identifier(where, "qa_id"),
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(answer,),
        answer_type=answer_type_of(answer),
        question_type=str(where.fields.get("type", "")),
        split=official,
        choices=(answer, *wrong),
        multiple_choice_answer=answer,
    )


def _choices(where: Place, choices: Any) -> tuple[str, ...]:
    if not isinstance(choices, list) or not choices:
        where.fail(f"the choices are {type_name(choices)}, must be a list of texts")
    return tuple(checked_text(choice, "a choice", where) for choice in choices)


SCIENCE_QA = Format(name="scienceqa", files={"train": ("problems.json",)}, entries=json_object, record=_science_qa)
VISUAL7W = Format(
    name="visual7w",
    files={"train": ("dataset_v7w_telling.json", "dataset.json")},
    entries=_visual7w_entries,
    record=_visual7w,
)

READERS = {
    "scienceqa": published_reader(
        """\
ScienceQA's questions with an image, multiple choice, from the authors' problems.json

  coattn prepare scienceqa ScienceQA/data/scienceqa data/scienceqa --images ScienceQA/images""",
        partial(read_format, SCIENCE_QA),
        checked="real file: the first 150 questions of problems.json",
    ),
    "visual7w": published_reader(
        """\
Visual7W telling, multiple choice, from the authors' dataset_v7w_telling.json

  coattn prepare visual7w VISUAL7W_FOLDER data/visual7w --images VISUAL7W_FOLDER/images""",
        partial(read_format, VISUAL7W),
        checked="layout of the authors' toolkit; no real file was at hand",
    ),
}
