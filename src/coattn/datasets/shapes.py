"""SHAPES: 244 compositional yes/no questions about generated grids of shapes (Andreas et al. 2016, arXiv 1511.02799).

Source: the files that come with https://github.com/ronghanghu/n2nmn: `{part}.query_str.txt`, `{part}.output`, and the
images as `{part}.input.npy` (N, 30, 30, 3), in blue, green, red. Also read: the same as `shapes_{part}.json` (a list of
objects with question_id, image, question, answer) with `shapes_{part}_images.zip`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from coattn.datasets.image_files import ArrayImage
from coattn.datasets.json_entries import File, Place, read_bytes
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, answer_text, identifier, read_text_file, texts
from coattn.datasets.reader import Option, published_reader
from coattn.datasets.records import Record
from coattn.datasets.split_files import json_list

_TRAIN = ("large", "med", "small", "tiny")
_ANSWERS = ("true", "false")


def read_shapes(files: str | Path, *, part: str = "large", skip_bad_rows: bool = False) -> Dataset:
    """Read the splits train, val and test that are there, with their images.

    Ids are `val/0` for question and image alike: each question has its own image, and 64 in a row are about the same.
    Answers are "true" and "false", `answer_type` is "yes/no".

    Args:
        files: folder with the files.
        part: which training questions: "large", "med", "small" or "tiny".
        skip_bad_rows: leave defective records out instead of refusing their file.

    Raises:
        ValueError: a file is missing, or not what it should be; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    names = {"train": f"train.{part}", "val": "val", "test": "test"}
    as_text = {split: file for split, name in names.items() if (file := found.find(f"{name}.query_str.txt"))}
    as_json = {split: file for split, name in names.items() if (file := found.find(f"shapes_{name}.json"))}
    if not as_text and not as_json:
        raise found.absent(*(f"{name}.query_str.txt" for name in names.values()))
    splits: dict[str, list[Record]] = {}
    pictures: dict[str, Any] = {}
    for split in names:
        if split in as_text:
            file = as_text[split]
            questions, answers, pixels = _arrays(found, file, names[split])
            rows = (
                Place(file, "line", number, row) for number, row in enumerate(zip(questions, answers, strict=True), 1)
            )
            splits[split] = found.bad.keep(file, rows, partial(_text_record, split=split))
            pictures |= {f"{split}/{number}": ArrayImage(image) for number, image in enumerate(pixels)}
        elif split in as_json:
            archive = found.archive(f"shapes_{names[split]}_images.zip")
            members = {name.rpartition("/")[2]: archive / name for name in archive.root.namelist()}
            read = partial(_json_record, split=split, members=members)
            splits[split] = found.bad.keep(as_json[split], json_list(as_json[split]), read)
            pictures |= {str(record.image_id): members[record.extra.pop("image")] for record in splits[split]}
    asked = {str(record.image_id) for records in splits.values() for record in records}
    return Dataset(
        name=f"shapes {part}",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images={image_id: picture for image_id, picture in pictures.items() if image_id in asked},
        copy_images=True,
        skipped=found.bad.left_out,
    )


def _text_record(where: Place, split: str) -> Record:
    question, answer = where.entry
    return _record(where, where.index - 1, question.strip(), answer.strip(), split)


def _json_record(where: Place, split: str, members: Mapping[str, Any]) -> Record:
    image, question = texts(where, "image", "question")
    if image not in members:
        where.fail(f"the image {image!r} is not in the archive of images; add it")
    record = _record(where, identifier(where, "question_id"), question, answer_text(where), split)
    return replace(record, extra={"image": image})


def _record(where: Place, number: int | str, question: str, answer: str, split: str) -> Record:
    if answer not in _ANSWERS:
        where.fail(f"the answer is {answer!r}, must be true or false")
    return Record(
        question_id=f"{split}/{number}",
        image_id=f"{split}/{number}",
        question=question,
        answers=(answer,),
        answer_type="yes/no",
        split=split,
    )


def _arrays(found: PublishedFiles, file: File, name: str) -> tuple[list[str], list[str], Any]:
    """Questions, answers and images of a split, equally many."""
    answers_file = found.need(f"{name}.output", why=f"the answers to {file}")
    questions, answers = (read_text_file(path).rstrip().split("\n") for path in (file, answers_file))
    if len(questions) != len(answers):
        raise ValueError(
            f"{answers_file}: {len(answers)} lines, but {file} has {len(questions)}; take files of one part"
        )
    return questions, answers, _pixels(found, name, len(questions))


def _pixels(found: PublishedFiles, name: str, count: int) -> Any:
    import numpy as np

    file = found.need(f"{name}.input.npy", f"{name}.npy", why="the images")
    try:
        pixels = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: not a whole array of numbers ({error}); download it again") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != count:
        raise ValueError(
            f"{file}: an array of {pixels.dtype} of shape {pixels.shape}, must be uint8 of shape ({count}, H, W, 3)"
        )
    return np.ascontiguousarray(pixels[..., ::-1])


READER = published_reader(
    """\
SHAPES, with its images, from a folder with train.large.query_str.txt, .output and .input.npy ...

  coattn prepare shapes SHAPES_FOLDER data/shapes --part large""",
    read_shapes,
    {"part": Option("large", "Read these training questions (default large).", _TRAIN)},
    checked="real files, all, as arrays and as JSON with PNG images",
    with_images=True,
)
