"""Sort-of-CLEVR: 10,000 drawn images of six coloured shapes, 30 questions each (Santoro et al. 2017, arXiv 1706.01427).

Source: what the generator of https://github.com/kimhc6028/relational-networks draws, as text and PNG: `NAME.jsonl.gz`,
an object per question with `image`, `question`, `answer` and `type`, and `NAME_images.zip`, for the NAMEs
sort_of_clevr_train and sort_of_clevr_test. The training images are divided: one of 25 is held out for validation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coattn.datasets.image_files import hold_out
from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record

DESCRIPTION = """\
Sort-of-CLEVR, from a folder with sort_of_clevr_{train,test}.jsonl.gz and sort_of_clevr_{train,test}_images.zip

  coattn prepare sort-of-clevr SORT_OF_CLEVR_FOLDER data/sort_of_clevr"""

_HELD_OUT = 25  # one training image of so many, for validation
_TYPES = {"nonrel": "non-relational", "binary": "binary", "ternary": "ternary"}
_KEYS = ("image", "question", "answer", "type")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the files are."""
    parser.add_argument("folder", metavar="FOLDER", help="folder with the questions (.jsonl.gz) and the images (.zip)")


def from_arguments(args: argparse.Namespace) -> Dataset:
    """The data set of the command line."""
    return read_sort_of_clevr(args.folder)


def read_sort_of_clevr(folder: str | Path) -> Dataset:
    """Read the files: splits train (9,408 images), val (392) and test (200), with their images.

    Ids of images are `train/00012` and `test/00012`, those of questions `train/12`, numbered as they stand in the file.
    `question_type` is "non-relational" (one object), "binary" (two) or "ternary" (three), `answer_type` "yes/no",
    "number" or "shape".

    Raises:
        ValueError: a file that is not of its kind, or a question that lacks a value, is of an unknown type, or is about
            an image that is not in the archive; the message names file and line.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    images: dict[str, zipfile.Path] = {}
    for official in ("train", "test"):
        archive = _open_archive(folder / f"sort_of_clevr_{official}_images.zip")
        names = [name for name in archive.root.namelist() if "/" not in name]
        held_out = hold_out(names, len(names) // _HELD_OUT, seed=0) if official == "train" else set()
        files = {name: f"{official}/{Path(name).stem}" for name in names}
        for number, (place, row) in enumerate(_read_questions(folder / f"sort_of_clevr_{official}.jsonl.gz")):
            if row["image"] not in files:
                raise ValueError(f"{place}: the image {row['image']!r} is not in {archive.root.filename}")
            if row["type"] not in _TYPES:
                raise ValueError(f"{place}: the type {row['type']!r} is not one of {', '.join(_TYPES)}")
            split = "val" if row["image"] in held_out else official
            splits[split].append(_record(f"{official}/{number}", files[row["image"]], row, split))
        images |= {image_id: archive / name for name, image_id in files.items()}
    return Dataset(
        name="sort-of-clevr",
        source=str(folder),
        splits=splits,
        metric="exact_match",
        images=images,
        copy_images=True,
    )


def _record(question_id: str, image_id: str, row: dict[str, Any], split: str) -> Record:
    answer = row["answer"]
    return Record(
        question_id=question_id,
        image_id=image_id,
        question=row["question"],
        answers=(answer,),
        answer_type="yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "shape",
        question_type=_TYPES[row["type"]],
        split=split,
    )


def _open_archive(path: Path) -> zipfile.Path:
    try:
        return zipfile.Path(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a zip archive ({error}); get the file again") from None


def _read_questions(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and values of each line; all the values that are needed are there, as text."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _KEYS):
                    raise ValueError(f"{path}: line {number}: must be an object with the texts {', '.join(_KEYS)}")
                yield f"{path}: line {number}", row
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {number}: not valid JSON ({error})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a whole gzip file of text ({error}); get the file again") from None
