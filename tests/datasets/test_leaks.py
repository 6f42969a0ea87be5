"""Leaks: training questions in relation to the questions that judge a model."""

from __future__ import annotations

from coattn.datasets.leaks import Exposure, count_leaks, describe_leaks, find_exposures
from coattn.datasets.records import Record


def asked(image: str, question: str) -> Record:
    return Record(question_id=f"{image} {question}", image_id=image, question=question, answers=("yes",))


TRAINING = [
    asked("a", "Is there evidence of a pneumothorax?"),
    asked("a", "Which side is the mass on?"),
    asked("b", "is it red?"),
]
EVALUATED = [
    asked("a", "is there evidence of a pneumothorax"),  # punctuation and case do not count
    asked("a", "Is a pneumothorax healed?"),
    asked("a", "Is there no pneumothorax?"),
    asked("c", "Is it red?"),
    asked("c", "Is there a pneumothorax?"),
]


def test_each_question_is_compared_with_training() -> None:
    assert find_exposures(TRAINING, EVALUATED) == [
        Exposure(image=True, question=True, repeated="identical"),
        Exposure(image=True, question=False, repeated=""),  # 1 of 2 content words is shared
        Exposure(image=True, question=False, repeated=""),  # the negation is content
        Exposure(image=False, question=True, repeated=""),
        Exposure(image=False, question=False, repeated=""),
    ]


def test_near_identical_questions() -> None:
    near = [asked("a", "Is a pneumothorax present?"), asked("a", "Which side of the image is the mass?")]
    assert [exposure.repeated for exposure in find_exposures(TRAINING, near)] == ["near", "near"]


def test_copies_of_a_picture_are_one_image() -> None:
    (exposure,) = find_exposures(TRAINING, [asked("b2", "Is it red?")], copies={"b2": "b"})
    assert exposure == Exposure(image=True, question=True, repeated="identical")


def test_counts_and_sentences() -> None:
    counts = count_leaks(EVALUATED, find_exposures(TRAINING, EVALUATED))
    assert counts == {
        "questions": 5,
        "images": 2,
        "shared_images": 1,
        "on_shared_images": 3,
        "known_questions": 2,
        "identical": 1,
        "near_identical": 0,
    }
    assert describe_leaks(counts, training="train", evaluated="test") == [
        "1 of 5 test questions are also in train, about the same image",
        "1 of 2 test images are also in train: 3 test questions are about an image that training has seen",
    ]
    assert describe_leaks(dict.fromkeys(counts, 0)) == []
