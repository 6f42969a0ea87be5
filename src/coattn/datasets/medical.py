"""VQA-RAD and SLAKE: questions about radiology images, closed and open.

Sources: VQA-RAD (https://osf.io/89kps, Lau et al. 2018, doi 10.1038/sdata.2018.251): "VQA_RAD Dataset Public.json", or
the copy trainset.json and testset.json that medical VQA projects use (Nguyen et al. 2019, arXiv 1909.11867). SLAKE
(https://www.med-vqa.com/slake, Liu et al. 2021, arXiv 2102.09542): train.json, validate.json, test.json, in English and
Chinese.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from coattn.datasets.json_entries import File, Place
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, answer_text, identifier, rest, texts
from coattn.datasets.reader import VALIDATION, Option, published_reader
from coattn.datasets.records import Record
from coattn.datasets.split_files import Format, json_list, read_format

NOTE = "score with coattn score --metric medical"
_RAD_FILES = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
_RAD_USED = ("qid", "image_name", "question", "answer", "answer_type", "question_type")
_SLAKE_USED = ("qid", "img_name", "img_id", "question", "answer", "answer_type", "content_type")
_PHRASINGS = ("published", "all")
_LANGUAGES = ("en", "zh", "all")


def read_vqa_rad(
    files: str | Path,
    *,
    phrasings: str = "published",
    images: str | Path | None = None,
    val_fraction: float = 0.1,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Read VQA-RAD: splits train, of which some images are held out as val, and test.

    Test is what the authors' `phrase_type` calls so ("test_freeform", "test_para"). The official splits share images
    and paraphrases; the report counts both. Images are named without suffix ("synpic54610"), `answer_type` is "open" or
    "closed", `question_type` the authors'. `phrase_type` stays in `extra`.

    Args:
        files: folder or zip archive with the authors' file, or with trainset.json and testset.json.
        phrasings: "published", or "all" to add the framed version of each training question (`question_frame`) as a
            separate question, as trainset.json does.
        images: folder of the images.
        val_fraction: share of the training images held out as val.
        skip_bad_rows: leave defective records out instead of refusing their file.

    Raises:
        ValueError: a file is missing or damaged, or records are defective; the message names file and question.
        OSError: a file cannot be read.
    """
    if PublishedFiles(files).find(*_RAD_FILES):
        form = Format(
            name="vqa-rad",
            files={"train": _RAD_FILES},
            entries=partial(_rad_entries, framed=phrasings == "all"),
            record=_rad_record,
            notes=(NOTE,),
        )
    else:
        names = {"train": (_RAD_FILES[0], "trainset.json"), "val": ("valset.json",), "test": ("testset.json",)}
        form = Format(name="vqa-rad", files=names, record=_numbered_rad_record, notes=(NOTE,))
    return read_format(form, files, images=images, val_fraction=val_fraction, skip_bad_rows=skip_bad_rows)


def read_slake(
    files: str | Path, *, language: str = "en", images: str | Path | None = None, skip_bad_rows: bool = False
) -> Dataset:
    """Read SLAKE: splits train, val and test of one language, "en" or "zh", or of "all".

    Images are named by their file ("xmlab1/source.jpg"), `answer_type` is "open" or "closed", `question_type` the
    authors' content type ("Modality", "Organ" ...). SLAKE 1.0 has one empty answer, whose question is left out.

    Raises:
        ValueError, OSError: as `read_vqa_rad`.
    """
    form = Format(
        name=f"slake {language}",
        files={"train": ("train.json",), "val": ("validate.json",), "test": ("test.json",)},
        entries=partial(_slake_entries, language=language),
        record=_slake_record,
        notes=(NOTE,),
    )
    return read_format(form, files, images=images, skip_bad_rows=skip_bad_rows)


def _rad_entries(file: File, *, framed: bool) -> Iterator[Place]:
    for place in json_list(file):
        yield place
        entry = place.entry if isinstance(place.entry, dict) else {}
        frame = entry.get("question_frame")
        if framed and isinstance(frame, str) and frame.strip() not in ("", "NULL") and not _is_test(entry):
            framed_entry = {**entry, "question": frame, "qid": f"{entry.get('qid')}/frame", "phrase_type": "frame"}
            yield Place(file, "question", place.index, framed_entry)


def _is_test(entry: dict[str, object]) -> bool:
    return str(entry.get("phrase_type", "")).startswith("test")


def _rad_record(where: Place, split: str) -> Record:
    image, question, _ = texts(where, "image_name", "question", "phrase_type")
    entry = where.fields
    return Record(
        question_id=identifier(where, "qid"),
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(answer_text(where),),
        answer_type=_open_or_closed(where),
        question_type=str(entry.get("question_type", "")).strip(),
        split="test" if _is_test(entry) else split,
        extra=rest(entry, *_RAD_USED),
    )


def _numbered_rad_record(where: Place, split: str) -> Record:
    """A question of trainset.json or testset.json, numbered by its place, because paraphrases share their `qid`."""
    image, question = texts(where, "image_name", "question")
    entry = where.fields
    return Record(
        question_id=f"{split}/{where.index}",
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(answer_text(where),),
        answer_type=_open_or_closed(where),
        question_type=str(entry.get("question_type", "")).strip(),
        split=split,
        extra=rest(entry, *_RAD_USED[1:]),
    )


def _slake_entries(file: File, *, language: str) -> Iterator[Place]:
    for place in json_list(file):
        if language == "all" or not isinstance(place.entry, dict) or place.entry.get("q_lang", language) == language:
            yield place


def _slake_record(where: Place, split: str) -> Record:
    image, question, _ = texts(where, "img_name", "question", "q_lang")
    return Record(
        question_id=identifier(where, "qid"),
        image_id=image,
        question=question,
        answers=(answer_text(where),),
        answer_type=_open_or_closed(where),
        question_type=str(where.fields.get("content_type", "")).strip(),
        split=split,
        extra=rest(where.fields, *_SLAKE_USED),
    )


def _open_or_closed(where: Place) -> str:
    (kind,) = texts(where, "answer_type")
    if kind.lower() not in ("open", "closed"):
        where.fail(f"answer_type is {kind!r}, must be OPEN or CLOSED")
    return kind.lower()


READERS = {
    "vqa-rad": published_reader(
        """\
VQA-RAD, radiology, from the authors' "VQA_RAD Dataset Public.json", or from trainset.json and testset.json

  coattn prepare vqa-rad VQA_RAD_FOLDER data/vqa_rad --images VQA_RAD_FOLDER
  coattn prepare vqa-rad data_RAD data/vqa_rad --images data_RAD/images""",
        read_vqa_rad,
        VALIDATION
        | {
            "phrasings": Option(
                "published",
                "Read the published questions, or add the framed version of each training question (all).",
                _PHRASINGS,
            )
        },
        checked="trainset.json, valset.json and testset.json of a project with the same layout (VQA-Med 2020); the "
        "authors' file by its published layout",
    ),
    "slake": published_reader(
        """\
SLAKE, radiology, in English or Chinese, from the authors' Slake1.0.zip, or unpacked

  coattn prepare slake Slake1.0 data/slake --images Slake1.0/imgs""",
        read_slake,
        {"language": Option("en", "Read the questions in this language (default en).", _LANGUAGES)},
        checked="real files",
    ),
}
