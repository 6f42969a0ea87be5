"""DAQUAR: 12,468 questions that people asked about 1,449 photos of rooms (Malinowski & Fritz 2014, arXiv 1410.0210).

Source: the authors' files with question and answer pairs, and with the images of train and test, under the names that
the authors use (qa.894.raw.txt, train.txt, test.txt) or under those of a common copy. The images are those of
NYU-Depth v2, named as in the questions (`image3.png`, `image3.jpg`). A tenth of the official training images is held
out for validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from coattn.datasets.bad_records import LeftOut, UnusableRecordError
from coattn.datasets.image_files import ImageFolder, hold_out
from coattn.datasets.json_entries import File, Place
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import VALIDATION_NOTE, PublishedFiles, read_text_file
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record

_PAIRS = ("all_qa_pairs.txt", "qa.894.raw.txt")
_LISTS = {"train": ("train_images_list.txt", "train.txt"), "test": ("test_images_list.txt", "test.txt")}
_NUM_HELD_OUT = 80  # of 795 training images, for validation
# "... in the image3 ?"; annotators also wrote "of the", "on the", "in this", and once "th eimage999".
_IMAGE = re.compile(r"\be?(image\d+)\b")
_TAIL = re.compile(r"(\s+(in|on|of))?(\s+(the?|this))?\s+e?image\d+\s*\??\s*$")


def read_daquar(files: str | Path, *, images: str | Path | None = None, skip_bad_rows: bool = False) -> Dataset:
    """Read the authors' files: splits train and val (714 and 80 images with questions), and test (653).

    Question ids number the pairs of the file from 0. The tail that names the image ("in the image3 ?") is not part of
    the question; an image number within a question becomes "image". The whole line of the answer is one answer: sets
    keep their commas, and `answer_type` ("one", "several") tells them apart. `question_type` is "number", "color" or
    "object".

    Args:
        files: folder or zip archive with the authors' files.
        images: folder of the images; by default `images` in that folder.
        skip_bad_rows: leave defective pairs out instead of refusing their file.

    Raises:
        ValueError: a file is missing, a pair lacks its answer or its image, an image is in both lists or has no file;
            the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    lists = {split: found.need(*names) for split, names in _LISTS.items()}
    listed = {split: _read_list(file) for split, file in lists.items()}
    if both := [name for name in listed["test"] if name in listed["train"]]:
        raise ValueError(f"{lists['test']}: {both[0]} is also in {lists['train'].name}; remove it from one list")
    split_of = {name: split for split, names in listed.items() for name in names}
    split_of |= dict.fromkeys(hold_out(listed["train"], _NUM_HELD_OUT, seed=0), "val")
    folder = ImageFolder(found.source / "images" if images is None else images)
    pairs = found.need(*_PAIRS)
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for record in found.bad.keep(pairs, _pairs(pairs), partial(_record, split_of=split_of)):
        splits[record.split].append(record)
    asked = {str(record.image_id) for records in splits.values() for record in records}
    return Dataset(
        name="daquar",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images={name: folder.folder / folder.find(name) for name in split_of if name in asked},
        skipped=[
            *found.bad.left_out,
            *(LeftOut(f"image {name!r}", "no question is about it") for name in split_of if name not in asked),
        ],
        notes=["score with coattn score --metric wups", VALIDATION_NOTE],
    )


def _pairs(path: File) -> Iterator[Place]:
    """The questions of a file, each with the answer on the line below it."""
    lines = [line.strip() for line in read_text_file(path).rstrip().split("\n")]
    if len(lines) % 2:
        raise ValueError(f"{path}: line {len(lines)}: a question without an answer; questions and answers alternate")
    for index in range(0, len(lines), 2):
        yield Place(path, "line", index + 1, lines[index : index + 2])


def _read_list(path: File) -> list[str]:
    names = read_text_file(path).split()
    if not names:
        raise ValueError(f"{path}: the list is empty; each line names an image, for example image3")
    return list(dict.fromkeys(names))


def _record(where: Place, split_of: Mapping[str, str]) -> Record:
    text, answer = where.entry
    images = _IMAGE.findall(text)
    if not images:
        where.fail(f"no image is named in {text!r}; questions end like 'in the image3 ?'")
    if not answer:
        raise UnusableRecordError(where, "the answer is empty")
    if images[-1] not in split_of:
        where.fail(f"{images[-1]} is neither in the list of training images nor in that of test images; add it to one")
    question = _IMAGE.sub("image", _TAIL.sub("", text))
    words = question.split()
    is_color = any(word.startswith(("color", "colour")) for word in words)
    return Record(
        question_id=where.index // 2,
        image_id=images[-1],
        question=question,
        answers=(answer,),
        answer_type="several" if "," in answer else "one",
        question_type="number" if words[:2] == ["how", "many"] else "color" if is_color else "object",
        split=split_of[images[-1]],
    )


READER = published_reader(
    """\
DAQUAR, from a folder with the authors' all_qa_pairs.txt, train_images_list.txt, test_images_list.txt, and images/

  coattn prepare daquar DAQUAR_FOLDER data/daquar
  coattn prepare daquar DAQUAR_FOLDER data/daquar --images NYU_FOLDER

The pairs may be called qa.894.raw.txt, the lists train.txt and test.txt. Train on both splits, train and val, once
nothing is left to choose: together they are the official training split.""",
    read_daquar,
    checked="real files, all questions, under the authors' names and under those of a common copy",
)
