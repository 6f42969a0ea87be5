"""RSVQA and FloodNet: questions about satellite and aerial images.

Sources: RSVQA (https://rsvqa.sylvainlobry.com, Lobry et al. 2020, arXiv 2003.07333): LR_split_train_questions.json with
LR_split_train_answers.json ..., of low (LR) and high resolution (USGS). FloodNet
(https://github.com/BinaLab/FloodNet-Challenge-EARTHVISION2021, Rahnemoonfar et al. 2021, arXiv 2012.02951): an object
of numbers and questions per split.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from coattn.datasets.json_entries import File, Place
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, answer_text, identifier, texts
from coattn.datasets.reader import VALIDATION, published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, json_list, json_object, read_format

_RSVQA = {
    "train": ("LR_split_train", "USGS_split_train"),
    "val": ("LR_split_val", "USGS_split_val"),
    "test": ("LR_split_test", "USGS_split_test"),
    "test_phili": ("USGS_split_test_phili",),
}


def read_rsvqa(files: str | Path, *, images: str | Path | None = None, skip_bad_rows: bool = False) -> Dataset:
    """Read the splits of RSVQA that are there; entries that the authors marked as not active are left out.

    Images are named by their number; `question_type` is the authors' ("count", "presence", "comp", "rural_urban").

    Raises:
        ValueError: a file is missing or damaged, or records are defective; the message names file and question.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    questions = found.splits({split: [f"{name}_questions.json" for name in names] for split, names in _RSVQA.items()})
    splits = {}
    for split, file in questions.items():
        answers = _rsvqa_answers(
            found.need(file.name.removesuffix(".gz").replace("_questions", "_answers"), why=f"the answers to {file}")
        )
        active = (place for place in json_list(file, "questions") if _is_active(place))
        splits[split] = found.bad.keep(file, active, partial(_rsvqa_record, split=split, answers=answers))
    return found.dataset("rsvqa", splits, images=images)


def _is_active(place: Place) -> bool:
    return not isinstance(place.entry, dict) or place.entry.get("active") is not False


def _rsvqa_answers(file: File) -> Mapping[int | str, str]:
    """The answers by their ids."""
    active = [place for place in json_list(file, "answers") if _is_active(place)]
    return {identifier(place, "id"): answer_text(place) for place in active}


def _rsvqa_record(where: Place, split: str, answers: Mapping[int | str, str]) -> Record:
    (question,) = texts(where, "question")
    ids = where.get("answers_ids")
    if not isinstance(ids, list) or not ids or ids[0] not in answers:
        where.fail(f"answers_ids is {ids!r}, must hold the id of an answer in the file of answers")
    answer = answers[ids[0]]
    return Record(
        question_id=identifier(where, "id"),
        image_id=identifier(where, "img_id"),
        question=question,
        answers=(answer,),
        answer_type=answer_type_of(answer),
        question_type=str(where.fields.get("type", "")),
        split=split,
    )


def _floodnet_record(where: Place, split: str) -> Record:
    """Images are named like their files without suffix ("10165"); only the answers of train are published."""
    image, question, kind = texts(where, "Image_ID", "Question", "Question_Type")
    answer = answer_text(where, "Ground_Truth") if split == "train" or "Ground_Truth" in where.fields else ""
    return Record(
        question_id=f"{split}/{where.key}",
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(answer,) if answer else (),
        answer_type=answer_type_of(answer) if answer else "",
        question_type=kind,
        split=split,
    )


FLOODNET = Format(
    name="floodnet",
    files={
        "train": ("Training Question.json", "Train_Question.json", "Question.json"),
        "challenge_val": ("Valid Question.json", "Valid_Question.json"),
        "test": ("Test Question.json", "Test_Question.json"),
    },
    entries=json_object,
    record=_floodnet_record,
)

READERS = {
    "rsvqa": published_reader(
        """\
RSVQA, satellite images, from the authors' LR_split_train_questions.json, LR_split_train_answers.json ...

  coattn prepare rsvqa RSVQA_LR_FOLDER data/rsvqa --images RSVQA_LR_FOLDER/Images_LR""",
        read_rsvqa,
        checked="layout of the authors' data specification and loading code; no real file was at hand",
    ),
    "floodnet": published_reader(
        """\
FloodNet, aerial images after a hurricane, from the authors' "Training Question.json" ...

The answers of the official validation and test questions are not published; a share of train is held out as val.

  coattn prepare floodnet FLOODNET_FOLDER data/floodnet --images FLOODNET_FOLDER/Images""",
        partial(read_format, FLOODNET),
        VALIDATION,
        checked="real files: the questions of train and test; validation by its published layout",
    ),
}
