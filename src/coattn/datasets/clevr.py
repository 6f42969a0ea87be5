"""CLEVR and CLEVR-CoGenT: questions about rendered scenes (Johnson et al. 2017, arXiv 1612.06890).

Source: https://cs.stanford.edu/people/jcjohns/clevr/ (CLEVR_v1.0.zip, CLEVR_CoGenT_v1.0.zip, or unpacked), and the file
CLEVR_questions.json that the authors' generator (https://github.com/facebookresearch/clevr-dataset-gen) writes.
"""

from __future__ import annotations

from functools import partial
from sys import intern
from typing import Any

from coattn.datasets.json_entries import Place, type_name
from coattn.datasets.published import answer_text, identifier, texts
from coattn.datasets.reader import VALIDATION, published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, json_list, read_format

# CoGenT has train, val and test of its condition A, and val and test of its condition B, in other colors.
_UNANSWERED = ("test", "testB")


def _record(where: Place, split: str) -> Record:
    """A question of CLEVR; the answers of the test splits are not published.

    Images are named like their files without suffix ("CLEVR_val_000042"). `question_type` is the last function of the
    question's program; `question_family_index` stays in `extra`. The rest of the program is longer than all other
    values and is left out.
    """
    question, image = texts(where, "question", "image_filename")
    answer = "" if split in _UNANSWERED else answer_text(where)
    return Record(
        question_id=identifier(where, "question_index"),
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(intern(answer),) if answer else (),
        answer_type=answer_type_of(answer) if answer else "",
        question_type=_last_function(where.fields.get("program") or [], where),
        split=split,
        extra={key: where.fields[key] for key in ("question_family_index",) if key in where.fields},
    )


def _last_function(program: Any, where: Place) -> str:
    """The function that computes the answer; the generator calls it "type"."""
    if not isinstance(program, list) or not all(isinstance(step, dict) for step in program):
        where.fail(f"program is {type_name(program)}, must be a list of objects")
    return intern(str(program[-1].get("function") or program[-1].get("type") or "")) if program else ""


CLEVR = Format(
    name="clevr",
    files={
        "train": ("CLEVR_train_questions.json", "CLEVR_trainA_questions.json", "CLEVR_questions.json"),
        "val": ("CLEVR_val_questions.json", "CLEVR_valA_questions.json"),
        "test": ("CLEVR_test_questions.json", "CLEVR_testA_questions.json"),
        "valB": ("CLEVR_valB_questions.json",),
        "testB": ("CLEVR_testB_questions.json",),
    },
    entries=partial(json_list, key="questions"),
    record=_record,
    notes=("score with coattn score --metric clevr",),
)

READER = published_reader(
    """\
CLEVR, CLEVR-CoGenT, or the output of CLEVR's generator, from the authors' questions (zip archive, or unpacked)

The splits of CoGenT are train, val and test of condition A, and valB and testB. Of the generator's one file,
CLEVR_questions.json, a share of the images is held out as val.

  coattn prepare clevr CLEVR_v1.0 data/clevr --images CLEVR_v1.0/images
  coattn prepare clevr CLEVR_CoGenT_v1.0 data/cogent --images CLEVR_CoGenT_v1.0/images""",
    partial(read_format, CLEVR),
    VALIDATION,
    checked="output of the authors' generator (400 questions); CLEVR_v1.0 and CoGenT by their published layout",
)
