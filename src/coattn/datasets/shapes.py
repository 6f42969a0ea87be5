"""SHAPES: 244 compositional yes/no questions about generated grids of shapes (Andreas et al. 2016, arXiv 1511.02799).

Source: the files that come with https://github.com/ronghanghu/n2nmn: `{part}.query_str.txt`, `{part}.output`, and the
images as `{part}.input.npy` (N, 30, 30, 3), in blue, green, red. Also read: the same as `shapes_{part}.json` (a list of
objects with question_id, image, question, answer) with `shapes_{part}_images.zip`; checked on real files of this form.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from coattn.datasets.json_entries import File, Place, read_bytes, read_json_list
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, identifier, read_text_file, texts
from coattn.datasets.reader import Option, published_reader
from coattn.datasets.records import Record

_TRAIN = ("large", "med", "small", "tiny")
_ANSWERS = ("true", "false")


class ArrayImage:
    """An image of an array, as a file of its own."""

    suffix = ".png"

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def open(self, mode: str = "rb") -> BinaryIO:
        """The image as PNG; `mode` can only be "rb"."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self.pixels).save(content, "PNG")
        content.seek(0)
        return content


def read_shapes(files: str | Path, *, part: str = "large") -> Dataset:
    """Read the splits train, val and test that are there, with their images.

    Ids are `val/0` for question and image alike: each question has its own image, and 64 in a row are about the same.
    Answers are "true" and "false", `answer_type` is "yes/no".

    Args:
        files: folder with the files.
        part: which training questions: "large", "med", "small" or "tiny".

    Raises:
        ValueError: a file is missing, or not what it should be; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    names = {"train": f"train.{part}", "val": "val", "test": "test"}
    as_text = {split: file for split, name in names.items() if (file := found.find(f"{name}.query_str.txt"))}
    as_json = {split: file for split, name in names.items() if (file := found.find(f"shapes_{name}.json"))}
    if not as_text and not as_json:
        raise found.absent(*(f"{name}.query_str.txt" for name in names.values()))
    splits: dict[str, list[Record]] = {}
    pictures: dict[str, Any] = {}
    for split in names:
        if split in as_text:
            splits[split] = list(_text_records(found, as_text[split], names[split], split))
            pixels = _pixels(found, names[split], len(splits[split]))
            pictures |= {f"{split}/{number}": ArrayImage(image) for number, image in enumerate(pixels)}
        elif split in as_json:
            archive = found.archive(f"shapes_{names[split]}_images.zip")
            members = {name.rpartition("/")[2]: archive / name for name in archive.root.namelist()}
            for record, image in _json_records(as_json[split], split):
                if image not in members:
                    raise ValueError(f"{as_json[split]}: the image {image!r} is not in {archive.root.filename}")
                splits.setdefault(split, []).append(record)
                pictures[str(record.image_id)] = members[image]
    return Dataset(
        name=f"shapes {part}",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images=pictures,
        copy_images=True,
        skipped=found.damaged,
    )


def _record(number: int | str, question: str, answer: str, place: str, split: str) -> Record:
    if answer not in _ANSWERS:
        raise ValueError(f"{place}: the answer is {answer!r}, must be true or false")
    return Record(
        question_id=f"{split}/{number}",
        image_id=f"{split}/{number}",
        question=question,
        answers=(answer,),
        answer_type="yes/no",
        split=split,
    )


def _text_records(found: PublishedFiles, file: File, name: str, split: str) -> Iterator[Record]:
    answers_file = found.need(f"{name}.output", why=f"the answers to {file}")
    questions, answers = (read_text_file(path).rstrip().split("\n") for path in (file, answers_file))
    if len(questions) != len(answers):
        raise ValueError(f"{answers_file}: {len(answers)} lines, but {file} has {len(questions)}; they belong together")
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        yield _record(number, question.strip(), answer.strip(), f"{answers_file}: line {number + 1}", split)


def _pixels(found: PublishedFiles, name: str, count: int) -> Any:
    import numpy as np

    file = found.need(f"{name}.input.npy", f"{name}.npy", why="the images")
    try:
        pixels = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: not a whole array of numbers ({error}); get the file again") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != count:
        raise ValueError(
            f"{file}: an array of {pixels.dtype} of shape {pixels.shape}, must be uint8 of shape ({count}, H, W, 3)"
        )
    return np.ascontiguousarray(pixels[..., ::-1])


def _json_records(file: File, split: str) -> Iterator[tuple[Record, str]]:
    for index, entry in enumerate(read_json_list(file, "").entries):
        where = Place(file, "question", index, entry)
        image, question, answer = texts(where, "image", "question", "answer")
        yield _record(identifier(where, "question_id"), question, answer, str(where), split), image


READER = published_reader(
    """\
SHAPES, with its images, from a folder with train.large.query_str.txt, .output and .input.npy ...

  coattn prepare shapes SHAPES_FOLDER data/shapes --part large""",
    read_shapes,
    {"part": Option("large", "which training questions (default large)", _TRAIN)},
    with_images=True,
)
