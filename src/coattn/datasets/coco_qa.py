"""COCO-QA: 117,684 questions made from captions of COCO (Ren et al. 2015, arXiv 1505.02074).

Source: https://www.cs.toronto.edu/~mren/research/imageqa/data/cocoqa/: folders train and test, each with questions.txt,
answers.txt, img_ids.txt and types.txt, one line per question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from coattn.datasets.bad_records import UnusableRecordError
from coattn.datasets.json_entries import File, Place
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, coco_names, read_text_file
from coattn.datasets.reader import VALIDATION, published_reader
from coattn.datasets.records import Record

_TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}
_LINES = ("questions.txt", "answers.txt", "img_ids.txt", "types.txt")


def read_coco_qa(
    files: str | Path, *, images: str | Path | None = None, val_fraction: float = 0.1, skip_bad_rows: bool = False
) -> Dataset:
    """Read train, of which some images are held out as val, and test.

    Question ids are `train/0` and `test/0`, the lines from 0. `question_type` is "object", "number", "color" or
    "location", `answer_type` "number" or "other".

    Raises:
        ValueError: a file is missing, the files of a split differ in their number of lines, or lines are defective; the
            message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    splits = {
        split: _records(found, [found.need(f"{split}/{name}") for name in _LINES], split) for split in ("train", "test")
    }
    return found.dataset(
        "coco-qa",
        splits,
        images=images,
        image_names=coco_names,
        val_fraction=val_fraction,
        notes=["score with coattn score --metric wups"],
    )


def _records(found: PublishedFiles, files: Sequence[File], split: str) -> list[Record]:
    columns = [read_text_file(file).rstrip().split("\n") for file in files]
    for file, lines in zip(files, columns, strict=True):
        if len(lines) != len(columns[0]):
            raise ValueError(
                f"{file}: {len(lines)} lines, but {files[0]} has {len(columns[0])}; take files of one split"
            )
    return found.bad.keep(files[0], _rows(files[0], columns), partial(_record, split=split))


def _rows(file: File, columns: Sequence[Sequence[str]]) -> Iterator[Place]:
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        yield Place(file, "line", number, [cell.strip() for cell in row])


def _record(where: Place, split: str) -> Record:
    question, answer, image, kind = where.entry
    if not question:
        where.fail("the question is empty; remove this line from all four files")
    if not answer:
        raise UnusableRecordError(where, "the answer is empty")
    if not image.isdecimal():
        where.fail(f"the image {image!r} in img_ids.txt is not the number of an image of COCO; correct it")
    if kind not in _TYPES:
        where.fail(f"the type {kind!r} in types.txt is not one of {', '.join(_TYPES)}; correct it")
    return Record(
        question_id=f"{split}/{where.index - 1}",
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
    checked="real files",
)
