"""VizWiz, TextVQA and A-OKVQA: photos with ten answers each, one JSON list of questions per split.

Sources: VizWiz (https://vizwiz.org/tasks-and-datasets/vqa, Gurari et al. 2018, arXiv 1802.08218): train.json, val.json,
test.json. TextVQA (https://textvqa.org, Singh et al. 2019, arXiv 1904.08920): TextVQA_0.5.1_train.json, ... A-OKVQA
(https://github.com/allenai/aokvqa, Schwenk et al. 2022, arXiv 2206.01718): aokvqa_v1p0_train.json, ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from sys import intern
from typing import Any

from coattn.datasets.json_entries import Place, type_name
from coattn.datasets.published import coco_names, identifier, rest, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record
from coattn.datasets.split_files import Format, json_list, read_format


def _splits(name: str) -> Mapping[str, tuple[str]]:
    return {split: (name.format(split),) for split in ("train", "val", "test")}


def _vizwiz(where: Place, split: str) -> Record:
    """One question per photo, named by its file ("VizWiz_train_00000000.jpg"); `answerable` stays in `extra`."""
    image, question = texts(where, "image", "question")
    answers = () if split == "test" else _answers(where, "answers", lambda answer: answer["answer"])
    return Record(
        question_id=image,
        image_id=image,
        question=question,
        answers=answers,
        answer_type=str(where.fields.get("answer_type", "")),
        split=split,
        extra=rest(where.fields, "image", "question", "answers", "answer_type"),
    )


def _textvqa(where: Place, split: str) -> Record:
    """The answer is written in the photo; size, classes and addresses of the photo stay in `extra`."""
    (question,) = texts(where, "question")
    return Record(
        question_id=identifier(where, "question_id"),
        image_id=identifier(where, "image_id"),
        question=question,
        answers=() if split == "test" else _answers(where, "answers", str),
        split=split,
        extra=rest(where.fields, "question", "question_id", "image_id", "answers", "question_tokens", "set_name"),
    )


def _a_okvqa(where: Place, split: str) -> Record:
    """Ten direct answers, and four `choices` of which `multiple_choice_answer` is the right one."""
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
        extra={key: where.fields[key] for key in ("difficult_direct_answer", "rationales") if key in where.fields},
    )


def _answers(where: Place, key: str, read: Callable[[Any], Any]) -> tuple[str, ...]:
    answers = where.get(key)
    if not isinstance(answers, list) or not answers:
        where.fail(
            f"{key} is {answers if answers == [] else type_name(answers)}, must be a list of at least one answer"
        )
    try:
        return tuple([intern(read(answer)) for answer in answers])
    except (TypeError, KeyError):
        where.fail(f"{key} holds something other than answers: {str(answers)[:80]}; correct it")


# The answers of the test splits are not published.
VIZWIZ = Format(
    name="vizwiz",
    files=_splits("{}.json"),
    record=_vizwiz,
    metric="vqa_accuracy",
    notes=("score with coattn score --metric vizwiz",),
)
TEXTVQA = Format(
    name="textvqa",
    files=_splits("TextVQA_0.5.1_{}.json"),
    entries=partial(json_list, key="data"),
    record=_textvqa,
    metric="textvqa",
)
A_OKVQA = Format(
    name="a-okvqa",
    files=_splits("aokvqa_v1p0_{}.json"),
    record=_a_okvqa,
    metric="vqa_accuracy",
    image_names=coco_names,
    notes=("score direct answers and choices with coattn score --metric a_okvqa, as the authors do",),
)

READERS = {
    "vizwiz": published_reader(
        """\
VizWiz, from the authors' train.json, val.json, test.json (Annotations.zip, or unpacked)

  coattn prepare vizwiz VIZWIZ_FOLDER data/vizwiz --images VIZWIZ_FOLDER""",
        partial(read_format, VIZWIZ),
        checked="real file: test.json; train and val by their published layout",
    ),
    "textvqa": published_reader(
        """\
TextVQA's questions, from the authors' TextVQA_0.5.1_train.json ... (without the text that OCR finds)

  coattn prepare textvqa TEXTVQA_FOLDER data/textvqa --images TEXTVQA_FOLDER""",
        partial(read_format, TEXTVQA),
        checked="published layout; no real file was at hand",
    ),
    "a-okvqa": published_reader(
        """\
A-OKVQA, direct answers and choices, from the authors' aokvqa_v1p0_train.json ...

  coattn prepare a-okvqa A_OKVQA_FOLDER data/a_okvqa --images COCO_FOLDER""",
        partial(read_format, A_OKVQA),
        checked="real files",
    ),
}
