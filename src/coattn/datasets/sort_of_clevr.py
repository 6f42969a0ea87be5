"""Sort-of-CLEVR: 10,000 drawn images of six coloured shapes, 30 questions each (Santoro et al. 2017, arXiv 1706.01427).

Source: what the generator of https://github.com/kimhc6028/relational-networks draws, as text and PNG: `NAME.jsonl.gz`,
an object per question with `image`, `question`, `answer` and `type`, and `NAME_images.zip`, for the NAMEs
sort_of_clevr_train and sort_of_clevr_test. The training images are divided: one of 25 is held out for validation.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from coattn._internal.files import parse_json
from coattn.datasets.image_files import hold_out
from coattn.datasets.json_entries import File, Place, checked_text
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, read_text_file
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of

_HELD_OUT = 25  # one training image of so many, for validation
_TYPES = {"nonrel": "non-relational", "binary": "binary", "ternary": "ternary"}


def read_sort_of_clevr(files: str | Path) -> Dataset:
    """Read the files: splits train (9,408 images), val (392) and test (200), with their images.

    Ids of images are `train/00012` and `test/00012`, those of questions `train/12`, numbered as they stand in the file.
    `question_type` is "non-relational" (one object), "binary" (two) or "ternary" (three), `answer_type` "yes/no",
    "number" or "shape".

    Raises:
        ValueError: a file that is not of its kind, or a question that lacks a value, is of an unknown type, or is about
            an image that is not in the archive; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    images: dict[str, zipfile.Path] = {}
    for official in ("train", "test"):
        archive = found.archive(f"sort_of_clevr_{official}_images.zip")
        names = [name for name in archive.root.namelist() if "/" not in name]
        held_out = hold_out(names, len(names) // _HELD_OUT, seed=0) if official == "train" else set()
        ids = {name: f"{official}/{Path(name).stem}" for name in names}
        for number, where in enumerate(_questions(found.need(f"sort_of_clevr_{official}.jsonl"))):
            image = _text(where, "image")
            if image not in ids:
                where.fail(f"the image {image!r} is not in {archive.root.filename}")
            split = "val" if image in held_out else official
            splits[split].append(_record(f"{official}/{number}", ids[image], where, split))
        images |= {image_id: archive / name for name, image_id in ids.items()}
    return Dataset(
        name="sort-of-clevr",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images=images,
        copy_images=True,
        skipped=found.damaged,
    )


def _record(question_id: str, image_id: str, where: Place, split: str) -> Record:
    question, answer, kind = (_text(where, key) for key in ("question", "answer", "type"))
    if kind not in _TYPES:
        where.fail(f"the type {kind!r} is not one of {', '.join(_TYPES)}")
    answer_type = answer_type_of(answer)
    return Record(
        question_id=question_id,
        image_id=image_id,
        question=question,
        answers=(answer,),
        answer_type="shape" if answer_type == "other" else answer_type,
        question_type=_TYPES[kind],
        split=split,
    )


def _text(where: Place, key: str) -> str:
    return checked_text(where.get(key), key, where)


def _questions(file: File) -> Iterator[Place]:
    for number, line in enumerate(read_text_file(file).rstrip("\n").split("\n"), start=1):
        yield Place(file, "line", number, parse_json(line, f"{file}: line {number}"))


READER = published_reader(
    """\
Sort-of-CLEVR, from a folder with sort_of_clevr_{train,test}.jsonl.gz and sort_of_clevr_{train,test}_images.zip

  coattn prepare sort-of-clevr SORT_OF_CLEVR_FOLDER data/sort_of_clevr""",
    read_sort_of_clevr,
    with_images=True,
)
