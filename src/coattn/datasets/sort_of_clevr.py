"""Sort-of-CLEVR: 10,000 drawn images of six colored shapes, 30 questions each (Santoro et al. 2017, arXiv 1706.01427).

Source: the output of the generator https://github.com/kimhc6028/relational-networks: its file sort-of-clevr.pickle
(read without running code), or the same as text and PNG: `NAME.jsonl.gz`, an object per question with `image`,
`question`, `answer` and `type`, and `NAME_images.zip`, for the NAMEs sort_of_clevr_train and sort_of_clevr_test. One
training image in 25 is held out for validation.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from coattn._internal.files import parse_json
from coattn.datasets.image_files import ArrayImage, hold_out
from coattn.datasets.json_entries import File, Place, check_regular, checked_text
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, read_text_file
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of

_PICKLE = "sort-of-clevr.pickle"
_HELD_OUT = 25  # one training image in 25 is held out for validation
_TYPES = {"nonrel": "non-relational", "binary": "binary", "ternary": "ternary"}

# The generator's codes. A question is a vector: two colors of 6, the type of 3 and the subtype of 3, each one-hot. The
# counts of ternary questions begin at 0, those of binary questions, which count the named object too, at 1.
_COLORS = ("red", "green", "blue", "orange", "gray", "yellow")
_WORDINGS = {
    "nonrel": (
        "what is the shape of the {} object ?",
        "is the {} object placed on the left side of the image ?",
        "is the {} object placed on the upside of the image ?",
    ),
    "binary": (
        "what is the shape of the object closest to the {} object ?",
        "what is the shape of the object furthest to the {} object ?",
        "how many objects have same shape with the {} object ?",
    ),
    "ternary": (
        "how many objects are in the box between the {} object and the {} object ?",
        "is there any object on the line between the {} object and the {} object ?",
        "how many objects form an obtuse triangle with the {} object and the {} object ?",
    ),
}
_ANSWERS = ("yes", "no", "rectangle", "circle")


def read_sort_of_clevr(files: str | Path, *, skip_bad_rows: bool = False) -> Dataset:
    """Read the files: splits train (9,408 images), val (392) and test (200), with their images.

    Ids of images are `train/00012` and `test/00012`, those of questions `train/12`, numbered as in the file.
    `question_type` is "non-relational" (one object), "binary" (two) or "ternary" (three), `answer_type` "yes/no",
    "number" or "shape".

    Raises:
        ValueError: a file is missing or damaged, or questions are defective; the message names file and line.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    pickle_file = found.find(_PICKLE)
    pickled = {} if pickle_file is None else _pickled(pickle_file)
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    images: dict[str, Any] = {}
    for official in ("train", "test"):
        file: File
        places: Iterable[Place]
        there: Mapping[str, Any]
        if pickle_file is None:
            file, places, there = _text_and_png(found, official)
        else:
            file, (places, there) = pickle_file, _decoded(pickle_file, pickled[official])
        held_out = hold_out(there, len(there) // _HELD_OUT, seed=0) if official == "train" else set()
        read = partial(_record, official=official, held_out=held_out, images=there)
        for record in found.bad.keep(file, places, read):
            splits[record.split].append(record)
        images |= {f"{official}/{Path(name).stem}": image for name, image in there.items()}
    return Dataset(
        name="sort-of-clevr",
        source=str(found.source.resolve()),
        splits=splits,
        metric="exact_match",
        images=images,
        copy_images=True,
        skipped=found.bad.left_out,
    )


def _record(where: Place, official: str, held_out: set[str], images: Mapping[str, Any]) -> Record:
    image, question, answer, kind = (_text(where, key) for key in ("image", "question", "answer", "type"))
    if image not in images:
        where.fail(f"the image {image!r} is not in the archive of images; add it")
    if kind not in _TYPES:
        where.fail(f"the type {kind!r} is not one of {', '.join(_TYPES)}; correct it")
    answer_type = answer_type_of(answer)
    return Record(
        question_id=f"{official}/{where.index - 1}",
        image_id=f"{official}/{Path(image).stem}",
        question=question,
        answers=(answer,),
        answer_type="shape" if answer_type == "other" else answer_type,
        question_type=_TYPES[kind],
        split="val" if image in held_out else official,
    )


def _text(where: Place, key: str) -> str:
    return checked_text(where.get(key), key, where)


def _text_and_png(found: PublishedFiles, official: str) -> tuple[File, Iterator[Place], Mapping[str, zipfile.Path]]:
    """The file of a split, its questions, and its images by name."""
    archive = found.archive(f"sort_of_clevr_{official}_images.zip")
    file = found.need(f"sort_of_clevr_{official}.jsonl")
    return file, _lines(file), {name: archive / name for name in archive.root.namelist() if "/" not in name}


def _lines(file: File) -> Iterator[Place]:
    for number, line in enumerate(read_text_file(file).rstrip("\n").split("\n"), start=1):
        yield Place(file, "line", number, parse_json(line, f"{file}: line {number}"))


def _pickled(file: File) -> dict[str, Any]:
    """The items of train and test in the generator's pickle: (image, (questions, answers), ...) each."""
    from coattn._internal.unpickle import ARRAYS, unpickle

    check_regular(file)
    with file.open("rb") as content:
        halves = unpickle(cast(BinaryIO, content), str(file), allowed=ARRAYS)
    if not isinstance(halves, tuple) or len(halves) != 2 or not all(isinstance(half, list) for half in halves):
        raise ValueError(f"{file}: must hold the lists of training and test images; is it the generator's file?")
    return dict(zip(("train", "test"), halves, strict=True))


def _decoded(file: File, items: Sequence[Any]) -> tuple[list[Place], dict[str, ArrayImage]]:
    """The questions as text and the images of the generator's items."""
    places: list[Place] = []
    images = {}
    for number, item in enumerate(items):
        name = f"{number:05}.png"
        try:
            pixels, *groups = item
            # (75, 75, 3) in blue, green, red and in [0, 1] -> red, green, blue as bytes
            images[name] = ArrayImage((pixels[..., ::-1] * 255).round().astype("uint8"))
            pairs = [pair for questions, answers in groups for pair in zip(questions, answers, strict=True)]
            entries = [{"image": name, **_entry(vector, answer)} for vector, answer in pairs]
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{file}: image {number}: not an item of the generator ({error}); make it again") from None
        places += [Place(file, "question", len(places) + 1 + index, entry) for index, entry in enumerate(entries)]
    return places, images


def _entry(vector: Any, answer: int) -> dict[str, str]:
    """A question vector (18,) and an answer code as text."""
    kind = tuple(_WORDINGS)[list(vector[12:15]).index(1)]
    wording = _WORDINGS[kind][list(vector[15:18]).index(1)]
    colors = [_COLORS[list(half).index(1)] for half in (vector[:6], vector[6:12]) if 1 in half]
    count = answer - len(_ANSWERS) + (kind == "binary")
    text = _ANSWERS[answer] if answer < len(_ANSWERS) else str(count)
    return {"question": wording.format(*colors), "answer": text, "type": kind}


READER = published_reader(
    """\
Sort-of-CLEVR, from the generator's sort-of-clevr.pickle, or from sort_of_clevr_{train,test}.jsonl.gz and _images.zip

  coattn prepare sort-of-clevr relational-networks/data data/sort_of_clevr""",
    read_sort_of_clevr,
    checked="output of the generator: all as text and PNG, and all 300,000 question vectors against the text",
    with_images=True,
)
