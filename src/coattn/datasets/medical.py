"""VQA-RAD, SLAKE and PathVQA: questions about medical images, closed and open.

Sources: VQA-RAD (https://osf.io/89kps, Lau et al. 2018, doi 10.1038/sdata.2018.251): "VQA_RAD Dataset Public.json".
SLAKE (https://www.med-vqa.com/slake, Liu et al. 2021, arXiv 2102.09542): train.json, validate.json, test.json, in
English and Chinese. PathVQA (He et al. 2020, arXiv 2003.10286): pickles qas/train/train_qa.pkl, ..., read without
running what they may hold. Written from the published formats; not checked on real files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coattn.datasets.json_entries import File, Place, checked_text, read_bytes, read_json_list
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import VALIDATION_NOTE, PublishedFiles, identifier, rest, texts, with_validation
from coattn.datasets.reader import VALIDATION, Option, published_reader
from coattn.datasets.records import Record, answer_type_of

_NOTE = "score with coattn score --metric medical"
_RAD_FILES = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
_RAD_USED = ("qid", "image_name", "question", "answer", "answer_type", "question_type")
_SLAKE_USED = ("qid", "img_name", "img_id", "question", "answer", "answer_type", "content_type")
_LANGUAGES = ("en", "zh", "all")


def read_vqa_rad(files: str | Path, *, images: str | Path | None = None, val_fraction: float = 0.1) -> Dataset:
    """Read VQA-RAD: test is what the authors' `phrase_type` calls so ("test_freeform", "test_para"); the rest is train.

    Some images of train are held out as val. The official splits share images: the report says how many. Images are
    named without suffix ("synpic54610"), `answer_type` is "open" or "closed", `question_type` the authors'.

    Raises:
        ValueError: a file is missing or not what it should be; the message names file and question.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    records = found.distinct(_rad_records(found.need(*_RAD_FILES)))
    train, test = ([record for record in records if record.split == split] for split in ("train", "test"))
    splits = {**with_validation(train, val_fraction), "test": test}
    notes = [_NOTE, *([VALIDATION_NOTE] if val_fraction else [])]
    return found.dataset("vqa-rad", splits, images=images, notes=notes)


def read_slake(files: str | Path, *, language: str = "en", images: str | Path | None = None) -> Dataset:
    """Read SLAKE: splits train, val and test of one language, "en" or "zh", or of "all".

    Images are named by their file ("xmlab1/source.jpg"), `answer_type` is "open" or "closed", `question_type` the
    authors' content type ("Modality", "Organ" ...).

    Raises:
        ValueError, OSError: as `read_vqa_rad`.
    """
    found = PublishedFiles(files)
    names = {"train": "train.json", "val": "validate.json", "test": "test.json"}
    splits = {
        split: found.distinct(_slake_records(file, split, language)) for split, file in found.splits(names).items()
    }
    if empty := [split for split, records in splits.items() if not records]:
        raise ValueError(f"{found.source}: no question of {empty[0]} is in the language {language!r}")
    return found.dataset(f"slake {language}", splits, images=images, notes=[_NOTE])


def read_pathvqa(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read PathVQA: splits train, val and test, of the pickles train_qa.pkl ... or train_vqa.pkl ...

    Question ids are `train/0`, numbered as they stand in the file. `answer_type` is "yes/no", "number" or "other".

    Raises:
        ValueError: as `read_vqa_rad`; also a pickle that holds more than plain values.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    names = ({split: f"{split}_{kind}.pkl" for split in ("train", "val", "test")} for kind in ("qa", "vqa"))
    splits = {split: list(_path_records(file, split)) for split, file in found.splits(*names).items()}
    return found.dataset("pathvqa", splits, images=images, notes=[_NOTE])


def _rad_records(file: File) -> Iterator[tuple[Place, Record]]:
    for index, entry in enumerate(read_json_list(file, "").entries):
        where = Place(file, "question", index, entry)
        image, question, answer, phrase = texts(where, "image_name", "question", "answer", "phrase_type")
        yield (
            where,
            Record(
                question_id=identifier(where, "qid"),
                image_id=image.rpartition(".")[0] or image,
                question=question,
                answers=(answer,),
                answer_type=_open_or_closed(where),
                question_type=str(entry.get("question_type", "")).strip(),
                split="test" if phrase.startswith("test") else "train",
                extra=rest(entry, *_RAD_USED),
            ),
        )


def _slake_records(file: File, split: str, language: str) -> Iterator[tuple[Place, Record]]:
    for index, entry in enumerate(read_json_list(file, "").entries):
        where = Place(file, "question", index, entry)
        image, question, answer, spoken = texts(where, "img_name", "question", "answer", "q_lang")
        if language not in ("all", spoken):
            continue
        yield (
            where,
            Record(
                question_id=identifier(where, "qid"),
                image_id=image,
                question=question,
                answers=(answer,),
                answer_type=_open_or_closed(where),
                question_type=str(entry.get("content_type", "")).strip(),
                split=split,
                extra=rest(entry, *_SLAKE_USED),
            ),
        )


def _open_or_closed(where: Place) -> str:
    (kind,) = texts(where, "answer_type")
    if kind.lower() not in ("open", "closed"):
        where.fail(f"answer_type is {kind!r}, must be OPEN or CLOSED")
    return kind.lower()


def _path_records(file: File, split: str) -> Iterator[Record]:
    from coattn._internal.unpickle import unpickle

    content = unpickle(read_bytes(file), str(file), encoding="utf-8")
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds a {type(content).__name__}, must hold a list of questions")
    for index, entry in enumerate(content):
        where = Place(file, "question", index, entry)
        where.get("image" if isinstance(entry, dict) and "image" in entry else "img_id")
        image, question = texts(where, *(("image", "question") if "image" in entry else ("img_id", "sent")))
        answer = _path_answer(where, entry)
        yield Record(
            question_id=f"{split}/{index}",
            image_id=image,
            question=question,
            answers=(answer,),
            answer_type=answer_type_of(answer),
            question_type=checked_text(entry.get("question_type", ""), "question_type", where),
            split=split,
        )


def _path_answer(where: Place, entry: dict[str, Any]) -> str:
    """The answer, or the best of `label`: answer to score."""
    label = entry.get("label")
    if "answer" not in entry and isinstance(label, dict) and label:
        if not all(type(score) in (int, float) for score in label.values()):
            where.fail("label holds a score that is no number, must be answers with their scores")
        return checked_text(max(label, key=label.__getitem__), "an answer", where)
    (answer,) = texts(where, "answer")
    return answer


READERS = {
    "vqa-rad": published_reader(
        """\
VQA-RAD, radiology, from the authors' "VQA_RAD Dataset Public.json"

  coattn prepare vqa-rad VQA_RAD_FOLDER data/vqa_rad --images VQA_RAD_FOLDER""",
        read_vqa_rad,
        VALIDATION,
    ),
    "slake": published_reader(
        """\
SLAKE, radiology, in English or Chinese, from the authors' Slake1.0.zip, or unpacked

  coattn prepare slake Slake1.0 data/slake --images Slake1.0/imgs""",
        read_slake,
        {"language": Option("en", "of the questions: en (default), zh, or all", _LANGUAGES)},
    ),
    "pathvqa": published_reader(
        """\
PathVQA, pathology, from the authors' pickles qas/train/train_qa.pkl ... (no code in them is run)

  coattn prepare pathvqa PVQA_FOLDER data/pathvqa --images PVQA_FOLDER/images""",
        read_pathvqa,
    ),
}
