"""COCO-QA: 117,684 questions made from captions of COCO (Ren et al. 2015, arXiv 1505.02074).

Source: https://www.cs.toronto.edu/~mren/research/imageqa/data/cocoqa/: folders train and test, each with questions.txt,
answers.txt, img_ids.txt and types.txt, a line per question. Written from the published format; not checked on real
files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coattn.datasets.json_entries import File
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import VALIDATION_NOTE, PublishedFiles, coco_names, read_text_file, with_validation
from coattn.datasets.reader import VALIDATION, published_reader
from coattn.datasets.records import Record

_TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}
_LINES = ("questions.txt", "answers.txt", "img_ids.txt", "types.txt")


def read_coco_qa(files: str | Path, *, images: str | Path | None = None, val_fraction: float = 0.1) -> Dataset:
    """Read train, of which some images are held out as val, and test.

    Question ids are `train/0` and `test/0`, the lines from 0. `question_type` is "object", "number", "color" or
    "location", `answer_type` "number" or "other".

    Raises:
        ValueError: a file is missing, the files of a split have not equally many lines, or a line is not what it should
            be; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    read = {
        split: list(_records(split, *(found.need(f"{split}/{name}") for name in _LINES))) for split in ("train", "test")
    }
    splits = {**with_validation(read["train"], val_fraction), "test": read["test"]}
    notes = ["score with coattn score --metric wups", *([VALIDATION_NOTE] if val_fraction else [])]
    return found.dataset("coco-qa", splits, images=images, image_names=coco_names, notes=notes)


def _records(split: str, *files: File) -> Iterator[Record]:
    columns = [read_text_file(file).rstrip().split("\n") for file in files]
    for file, lines in zip(files, columns, strict=True):
        if len(lines) != len(columns[0]):
            raise ValueError(f"{file}: {len(lines)} lines, but {files[0]} has {len(columns[0])}; they belong together")
    for number, row in enumerate(zip(*columns, strict=True)):
        question, answer, image, kind = (cell.strip() for cell in row)
        for file, cell in zip(files, (question, answer, image, kind), strict=True):
            if not cell:
                raise ValueError(f"{file}: line {number + 1}: is empty")
        if not image.isdecimal():
            raise ValueError(f"{files[2]}: line {number + 1}: {image!r} is no number of an image of COCO")
        if kind not in _TYPES:
            raise ValueError(f"{files[3]}: line {number + 1}: the type {kind!r} is not one of {', '.join(_TYPES)}")
        yield Record(
            question_id=f"{split}/{number}",
            image_id=int(image),
            question=question,
            answers=(answer,),
            answer_type="number" if _TYPES[kind] == "number" else "other",
            question_type=_TYPES[kind],
            split=split,
        )


READER = published_reader(
    """\
COCO-QA, from the authors' folders train and test with questions.txt, answers.txt, img_ids.txt and types.txt

  coattn prepare coco-qa COCO_QA_FOLDER data/coco_qa --images COCO_FOLDER""",
    read_coco_qa,
    VALIDATION,
)
