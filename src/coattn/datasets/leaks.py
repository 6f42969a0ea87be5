"""Leaks between the questions that train a model and those that judge it.

Three things can leak: the image, the text of the question, and the question on that very image. Shared images alone are
usual in medical data sets. A repeated question on a shared image makes a score say little: of VQA-RAD's test questions
those with a training paraphrase are answered far more often.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from coattn.datasets.records import Record
from coattn.text.tokenizer import tokenize

NEAR = 0.6  # share of common content words from which two questions on one image count as near-identical
_NO_COPIES: Mapping[str, str] = MappingProxyType({})
# Words that carry no content of a question. Negations are content: "is there no cube?" is another question.
_FUNCTION_WORDS = frozenset(
    """
    a an the is are was were be there this that these those in on of at to do does did can could you see seen it its any
    what which with and image picture photo scan shown visible present evidence
    """.split()  # noqa: SIM905  (readable as a text)
)


class Exposure(NamedTuple):
    """Training questions in relation to one evaluated question.

    Attributes:
        image: whether training has questions about the same image.
        question: whether training asks the same question, about any image.
        repeated: "identical" if training asks the same question about the same image, "near" if it asks a
            near-identical one, else "".
    """

    image: bool
    question: bool
    repeated: str


def find_exposures(
    training: Iterable[Record], evaluated: Sequence[Record], *, copies: Mapping[str, str] = _NO_COPIES
) -> list[Exposure]:
    """Compare each evaluated question with the training questions.

    Questions are the same if their words are, without regard to case and punctuation. They are near-identical if they
    share at least 60 % of their content words (Jaccard index over the words other than articles, "is", "image", ...).

    Args:
        training: the questions that a model is trained on.
        evaluated: the questions that judge it.
        copies: image id, as text, to the id that stands for all copies of that picture; other images stand for
            themselves (see `copies.find_copies`).

    Returns:
        One `Exposure` per evaluated question, in their order.
    """
    wanted = {_image(record, copies) for record in evaluated}
    asked: set[str] = set()
    on_image: dict[str, set[str]] = defaultdict(set)
    for record in training:
        text = question_key(record.question)
        asked.add(text)
        image = _image(record, copies)
        if image in wanted:
            on_image[image].add(text)
    exposures = []
    for record in evaluated:
        text, there = question_key(record.question), on_image.get(_image(record, copies), set())
        repeated = "identical" if text in there else "near" if any(_near(text, other) for other in there) else ""
        exposures.append(Exposure(bool(there), text in asked, repeated))
    return exposures


def count_leaks(evaluated: Sequence[Record], exposures: Sequence[Exposure]) -> dict[str, int]:
    """Totals of `find_exposures`, as plain numbers for JSON.

    Returns:
        "questions" and "images" of the evaluated split; of these "shared_images", "on_shared_images" (questions),
        "known_questions" (asked in training about any image), "identical" and "near_identical" (questions that training
        asks about the same image).
    """
    pairs = list(zip(evaluated, exposures, strict=True))
    return {
        "questions": len(pairs),
        "images": len({str(record.image_id) for record, _ in pairs}),
        "shared_images": len({str(record.image_id) for record, seen in pairs if seen.image}),
        "on_shared_images": sum(seen.image for _, seen in pairs),
        "known_questions": sum(seen.question for _, seen in pairs),
        "identical": sum(seen.repeated == "identical" for _, seen in pairs),
        "near_identical": sum(seen.repeated == "near" for _, seen in pairs),
    }


def describe_leaks(counts: Mapping[str, int], *, training: str = "train", evaluated: str = "val") -> list[str]:
    """One sentence for each leak in `counts`; an empty list if nothing leaks.

    Args:
        counts: the result of `count_leaks`.
        training, evaluated: the names of the two splits.
    """
    lines = []
    if counts["identical"]:
        lines.append(
            f"{counts['identical']} of {counts['questions']} {evaluated} questions are also in {training}, about the "
            "same image"
        )
    if counts["near_identical"]:
        lines.append(
            f"{counts['near_identical']} of {counts['questions']} {evaluated} questions have a near-identical question "
            f"about the same image in {training}"
        )
    if counts["shared_images"]:
        lines.append(
            f"{counts['shared_images']} of {counts['images']} {evaluated} images are also in {training}: "
            f"{counts['on_shared_images']} {evaluated} questions are about an image that training has seen"
        )
    return lines


@lru_cache(maxsize=1 << 18)  # every split is compared with the same training questions
def question_key(question: str) -> str:
    """The words of a question, in lower case and without punctuation: equal for questions that count as the same."""
    return " ".join(tokenize(question))


def _image(record: Record, copies: Mapping[str, str]) -> str:
    return copies.get(str(record.image_id), str(record.image_id))


def _near(one: str, other: str) -> bool:
    first, second = (set(text.split()) - _FUNCTION_WORDS or set(text.split()) for text in (one, other))
    return bool(first | second) and len(first & second) >= NEAR * len(first | second)
