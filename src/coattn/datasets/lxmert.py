"""Questions in the JSON lists of LXMERT and VL-T5, which many projects share.

Sources: https://github.com/airsplay/lxmert (Tan & Bansal 2019, arXiv 1908.07490) and https://github.com/j-min/VL-T5:
lists of objects with `img_id`, `sent`, `question_id` and `label` (answers with their soft scores): of VQA v2
train.json, nominival.json, minival.json; of GQA train.json, valid.json, testdev.json; of VL-T5 karpathy_train.json ...
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from coattn.datasets.json_entries import Place, type_name
from coattn.datasets.published import coco_names, identifier, named_like_id, rest, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, read_format
from coattn.features.store.image_ids import coco_number

_PEOPLE = 10  # answers per question of VQA v2


def _record(where: Place, split: str) -> Record:
    """Images of COCO are known by their numbers, as in VQA's files; other images by their names."""
    image, question = texts(where, "img_id", "sent")
    coco = coco_number(image)
    answers = _answers(where, where.fields.get("label"), split)
    best = answers[0] if answers else ""
    return Record(
        question_id=identifier(where, "question_id"),
        image_id=int(coco) if coco else image,
        question=question,
        answers=answers,
        answer_type=str(where.fields.get("answer_type") or (answer_type_of(best) if best else "")),
        question_type=str(where.fields.get("question_type") or ""),
        split=split,
        multiple_choice_answer=best,
        extra=rest(where.fields, "img_id", "sent", "question_id", "answer_type", "question_type", "label", "answer"),
    )


def _answers(where: Place, label: Any, split: str) -> tuple[str, ...]:
    """The answers of ten people that the soft scores stand for; one answer where the data set has no answer types.

    The official scores 0.3, 0.6, 0.9 and 1 mean 1, 2, 3 and at least 4 of ten people. Answers outside of the authors'
    vocabulary are unknown, so that fewer than ten may remain.
    """
    if label is None and split == "test":
        return ()
    if not isinstance(label, dict) or not all(type(score) in (int, float) for score in label.values()):
        where.fail(f"label is {type_name(label)}, must be an object of answers and their scores")
    ranked: Mapping[str, float] = dict(sorted(label.items(), key=lambda item: -item[1]))
    if "answer_type" not in where.fields:
        return tuple(ranked)[:1]
    counts = {answer: min(4, max(1, round(score / 0.3))) for answer, score in ranked.items()}
    best = next(iter(counts), "")
    if counts and ranked[best] == 1:
        counts[best] += max(0, _PEOPLE - sum(counts.values()))
    return tuple(answer for answer, count in counts.items() for _ in range(count))


def _image_names(image_id: int | str) -> list[str]:
    return coco_names(image_id) if isinstance(image_id, int) else named_like_id(image_id)


LXMERT = Format(
    name="lxmert",
    files={
        "train": ("train.json", "karpathy_train.json"),
        "nominival": ("nominival.json",),
        "val": ("minival.json", "valid.json", "val.json", "karpathy_val.json"),
        "testdev": ("testdev.json",),
        "test": ("test.json", "karpathy_test.json"),
    },
    record=_record,
    metric="",
    image_names=_image_names,
    notes=("the human answers were restored from the soft scores; answers outside of the vocabulary are missing",),
)

READER = published_reader(
    """\
Questions of VQA v2, GQA and others in the JSON of LXMERT and VL-T5 (img_id, sent, label)

  coattn prepare lxmert lxmert/data/vqa data/vqa_lxmert --images COCO_FOLDER""",
    partial(read_format, LXMERT),
    checked="layout of the authors' loading code; no real file was at hand",
)
