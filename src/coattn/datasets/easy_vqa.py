"""easy-VQA: 5,000 generated images of one colored shape and 48,248 questions, from the Python package `easy-vqa`.

Source: https://github.com/vzhou842/easy-VQA. The package holds images and questions. Every tenth image of the official
training split is held out for validation.
"""

from __future__ import annotations

from pathlib import Path

from coattn._internal.files import require
from coattn.datasets.prepared import Dataset
from coattn.datasets.reader import Reader
from coattn.datasets.records import Record, answer_type_of

_SHAPES = frozenset({"circle", "rectangle", "triangle"})


def read_easy_vqa() -> Dataset:
    """Read the installed package: splits train (3,600 images), val (400) and test (1,000), with their images.

    Ids are `train/12` and `test/12`, because the official numbers begin at 0 in both splits. `question_type` separates
    the negated yes/no questions, which are harder.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    package = require("easy_vqa", "easy-vqa")
    train = _records("train", *package.get_train_questions())
    paths = {"train": package.get_train_image_paths(), "test": package.get_test_image_paths()}
    return Dataset(
        name="easy-vqa",
        source="the Python package easy-vqa",
        splits={
            "train": [record for record in train if record.split == "train"],
            "val": [record for record in train if record.split == "val"],
            "test": _records("test", *package.get_test_questions()),
        },
        metric="exact_match",
        images={f"{split}/{number}": Path(files[number]) for split, files in paths.items() for number in sorted(files)},
        copy_images=True,
    )


def _records(official_split: str, questions: list[str], answers: list[str], images: list[int]) -> list[Record]:
    return [
        Record(
            question_id=f"{official_split}/{number}",
            image_id=f"{official_split}/{image}",
            question=question,
            answers=(answer,),
            answer_type=answer_type_of(answer),
            question_type=_question_type(question, answer),
            split="val" if official_split == "train" and image % 10 == 0 else official_split,
        )
        for number, (question, answer, image) in enumerate(zip(questions, answers, images, strict=True))
    ]


def _question_type(question: str, answer: str) -> str:
    """Negated questions are "is no ... present?", "is there not a ...?" and "does the image not contain a ...?"."""
    if answer in ("yes", "no"):
        words = question.split()
        return "yes/no, negated" if "not" in words or "no" in words else "yes/no"
    return "shape" if answer in _SHAPES else "color"


READER = Reader(
    """\
easy-VQA, from the installed Python package easy-vqa (pip install 'coattn[easy-vqa]')

  coattn prepare easy-vqa data/easy_vqa""",
    add_arguments=lambda parser: None,  # the package holds everything
    from_arguments=lambda args: read_easy_vqa(),
    checked="the package, version 1.0, all",
)
