"""DocVQA and ST-VQA: questions whose answers are written in the image.

Sources: DocVQA (https://www.docvqa.org, Mathew et al. 2021, arXiv 2007.00398): train_v1.0_withQT.json or
train_v1.0.json, ...; also InfographicVQA's files of the same layout. ST-VQA (https://rrc.cvc.uab.es/?ch=11, Biten et
al. 2019, arXiv 1905.13648): train_task_1.json ... Each is an object with the questions under "data".
"""

from __future__ import annotations

from functools import partial

from coattn.datasets.json_entries import Place, checked_text
from coattn.datasets.published import identifier, rest, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record
from coattn.datasets.split_files import Format, json_list, read_format

_NOTES = ("score with coattn score --metric anls",)


def _docvqa(where: Place, split: str) -> Record:
    """Images are named like their files ("xnbl0037_1"); the test split has no answers."""
    key = "image" if "image" in where.fields else "image_local_name"
    image, question = texts(where, key, "question")
    kinds = where.fields.get("question_types") or []
    return Record(
        question_id=identifier(where, "questionId"),
        image_id=image.rpartition("/")[2].rpartition(".")[0] or image,
        question=question,
        answers=() if split == "test" else _answers(where),
        question_type=str(kinds[0]) if isinstance(kinds, list) and kinds else "",
        split=split,
        extra=rest(where.fields, key, "question", "questionId", "answers", "data_split"),
    )


def _st_vqa(where: Place, split: str) -> Record:
    """Images are named by their path ("coco-text/COCO_train2014_000000000036.jpg"); the test split has no answers."""
    image, question = texts(where, "file_path", "question")
    return Record(
        question_id=identifier(where, "question_id"),
        image_id=image,
        question=question,
        answers=() if split == "test" else _answers(where),
        split=split,
        extra=rest(where.fields, "file_path", "question", "question_id", "answers", "set_name"),
    )


def _answers(where: Place) -> tuple[str, ...]:
    answers = where.get("answers")
    if not isinstance(answers, list) or not answers:
        where.fail("answers must be a list of at least one text; correct it, or remove the entry")
    return tuple(checked_text(answer, "an answer", where) for answer in answers)


# The metric of both data sets is ANLS, which takes the best of the answers; exact match is the nearest general one.
DOCVQA = Format(
    name="docvqa",
    files={
        split: tuple(
            f"{prefix}{split}_v1.0{suffix}.json"
            for prefix in ("", "infographicsVQA_", "infographicVQA_")
            for suffix in ("_withQT", "")
        )
        for split in ("train", "val", "test")
    },
    entries=partial(json_list, key="data"),
    record=_docvqa,
    notes=_NOTES,
)
ST_VQA = Format(
    name="st-vqa",
    files={split: tuple(f"{split}_task_{task}.json" for task in (3, 1, 2)) for split in ("train", "test")},
    entries=partial(json_list, key="data"),
    record=_st_vqa,
    notes=_NOTES,
)

READERS = {
    "docvqa": published_reader(
        """\
DocVQA, scanned documents, from the authors' train_v1.0_withQT.json, val_v1.0_withQT.json, test_v1.0.json

  coattn prepare docvqa DOCVQA_FOLDER data/docvqa --images DOCVQA_FOLDER""",
        partial(read_format, DOCVQA),
        checked="layout of the loading code of several projects; no real file was at hand",
    ),
    "st-vqa": published_reader(
        """\
ST-VQA, text in photos, from the authors' train_task_3.json ... of task 3, 1 or 2

  coattn prepare st-vqa ST_VQA_FOLDER data/st_vqa --images ST_VQA_FOLDER""",
        partial(read_format, ST_VQA),
        checked="layout of the loading code of several projects; no real file was at hand",
    ),
}
