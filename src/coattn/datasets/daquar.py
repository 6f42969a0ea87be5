"""DAQUAR: 12,468 questions that people asked about 1,449 photos of rooms (Malinowski & Fritz 2014, arXiv 1410.0210).

Source: the authors' files: question and answer pairs, and which images train and which test; under the names that the
authors give them (qa.894.raw.txt, train.txt, test.txt), not checked, or those of a common copy, checked on all of it.
The images are those of NYU-Depth v2; any copy of them does, under the names that the questions use (`image3.png`,
`image3.jpg`). The official training images are divided: a tenth of them is held out for validation.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from coattn.datasets.image_files import ImageFolder, hold_out
from coattn.datasets.json_entries import File
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import VALIDATION_NOTE, PublishedFiles, read_text_file
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record

_PAIRS = ("all_qa_pairs.txt", "qa.894.raw.txt")
_LISTS = {"train": ("train_images_list.txt", "train.txt"), "test": ("test_images_list.txt", "test.txt")}
_NUM_HELD_OUT = 80  # of 795 training images, for validation
_IMAGE = re.compile(r"\bimage\d+\b")
# "... in the image3 ?", and what annotators wrote in its place: "of the", "on the", "in this".
_TAIL = re.compile(r"(\s+(in|on|of))?(\s+(the|this))?\s+image\d+\s*\??\s*$")


def read_daquar(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read the authors' files: splits train and val (714 and 80 images with questions), and test (653).

    Question ids number the pairs of the file from 0. The tail that names the image ("in the image3 ?") is not part of
    the question; an image number within a question becomes "image". The whole line of the answer is one answer: sets
    keep their commas, and `answer_type` ("one", "several") tells them apart. `question_type` is "number", "color" or
    "object".

    Args:
        files: folder or zip archive with the authors' files.
        images: folder of the images; by default `images` in that folder.

    Raises:
        ValueError: a file is missing, a pair is without its answer or its image, an image is in no list or in two or
            has no file; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    lists = {split: found.need(*names) for split, names in _LISTS.items()}
    listed = {split: _read_list(file) for split, file in lists.items()}
    if both := [name for name in listed["test"] if name in listed["train"]]:
        raise ValueError(f"{lists['test']}: {both[0]} is in {lists['train'].name} too; the images must not overlap")
    split_of = {name: split for split, names in listed.items() for name in names}
    split_of |= dict.fromkeys(hold_out(listed["train"], _NUM_HELD_OUT, seed=0), "val")
    folder = ImageFolder(found.source / "images" if images is None else images)
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for number, pair in enumerate(_read_pairs(found.need(*_PAIRS))):
        if pair.image not in split_of:
            names = " nor in ".join(file.name for file in lists.values())
            raise ValueError(f"{pair.place}: {pair.image} is neither in {names}")
        splits[split_of[pair.image]].append(_record(number, pair, split_of[pair.image]))
    asked = {str(record.image_id) for records in splits.values() for record in records}
    return Dataset(
        name="daquar",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images={name: folder.folder / folder.find(name) for name in split_of if name in asked},
        skipped=[*found.damaged, *(f"{name}: no question about it" for name in split_of if name not in asked)],
        notes=["score with coattn score --metric wups", VALIDATION_NOTE],
    )


class _Pair(NamedTuple):
    """One question and its answer, as they stand in the file at `place`."""

    place: str
    question: str
    image: str
    answer: str


def _read_pairs(path: File) -> list[_Pair]:
    lines = [line.strip() for line in read_text_file(path).rstrip().split("\n")]
    if len(lines) % 2:
        raise ValueError(f"{path}: line {len(lines)}: a question without an answer; questions and answers take turns")
    pairs = []
    for index in range(0, len(lines), 2):
        place, question, answer = f"{path}: line {index + 1}", lines[index], lines[index + 1]
        images = _IMAGE.findall(question)
        if not images:
            raise ValueError(f"{place}: no image is named in {question!r}; questions end like 'in the image3 ?'")
        if not answer:
            raise ValueError(f"{path}: line {index + 2}: the answer is empty")
        pairs.append(_Pair(place, question, images[-1], answer))
    return pairs


def _read_list(path: File) -> list[str]:
    names = read_text_file(path).split()
    if not names:
        raise ValueError(f"{path}: no image is listed; each line names one, for example image3")
    return list(dict.fromkeys(names))


def _record(number: int, pair: _Pair, split: str) -> Record:
    question = _IMAGE.sub("image", _TAIL.sub("", pair.question))
    words = question.split()
    is_color = any(word.startswith(("color", "colour")) for word in words)
    return Record(
        question_id=number,
        image_id=pair.image,
        question=question,
        answers=(pair.answer,),
        answer_type="several" if "," in pair.answer else "one",
        question_type="number" if words[:2] == ["how", "many"] else "color" if is_color else "object",
        split=split,
    )


READER = published_reader(
    """\
DAQUAR, from a folder with the authors' all_qa_pairs.txt, train_images_list.txt, test_images_list.txt, and images/

  coattn prepare daquar DAQUAR_FOLDER data/daquar
  coattn prepare daquar DAQUAR_FOLDER data/daquar --images NYU_FOLDER

The pairs may be called qa.894.raw.txt, the lists train.txt and test.txt. Train on both splits, train and val, once
nothing is left to choose: together they are the official training split.""",
    read_daquar,
)
