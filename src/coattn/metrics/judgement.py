"""What every metric takes, the answers to a split, and what it gives: how much each answer is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from coattn.datasets.records import Record
from coattn.text.answers import answer_key

Kind = TypeVar("Kind", dict, list, bool)

_KINDS = {dict: "an object", list: "a list", bool: "true or false"}


@dataclass(frozen=True)
class Submission:
    """Answers to be judged.

    Attributes:
        records: the questions with their human answers; every one has at least one.
        answers: the answer to each, in the same order.
        answerable: (N,) how likely each question can be answered at all, or None if nothing was said.
        choices: GQA's choices file, or None.
        where: what the answers are called in messages, for example their file.
    """

    records: Sequence[Record]
    answers: Sequence[str]
    answerable: np.ndarray | None = None
    choices: Mapping[str, Any] | None = None
    where: str = "results"


class Spelled(NamedTuple):
    """Answers in the spelling of the annotations, and a note if that changed any."""

    answers: list[str]
    notes: list[str]


class Statistic(NamedTuple):
    """Numbers that are no means over questions.

    Attributes:
        names: what they are called, K of them.
        num_questions: how many questions they are about.
        compute: from how often each question counts, (N,) integers, to the K numbers as they are shown. Counting a
            question twice must give what a copy of it would.
    """

    names: tuple[str, ...]
    num_questions: int
    compute: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Judgement:
    """How good answers are.

    Attributes:
        worth: (N,) float64 what each answer is worth, in [0, 1]; NaN where the question does not count.
        groups: by the name of a division, the part that each of the N questions belongs to, "" for none: its means of
            `worth` are reported.
        means: further values (N,) by name, NaN where they do not apply; their means are reported, in percent.
        statistics: further numbers.
        notes: what the reader of the numbers should know.
    """

    worth: np.ndarray
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    means: Mapping[str, np.ndarray] = field(default_factory=dict)
    statistics: Sequence[Statistic] = ()
    notes: Sequence[str] = ()


def extra(record: Record, key: str, kind: type[Kind]) -> Kind:
    """What a data set says of a question beside the usual: its value, or an empty one where it says nothing.

    Raises:
        ValueError: it is of another kind.
    """
    value = record.extra.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(
            f"question_id {record.question_id!r}: {key!r} is {value!r}, must be {_KINDS[kind]}, as in the files of its "
            "data set"
        )
    return value


def as_annotated(submission: Submission) -> Spelled:
    """The answers in the spelling of the annotations, for metrics that compare letter by letter.

    Our models answer in the official normal form ("t shirt" for "t-shirt", "light blue white" or, where they write
    their answers, "light blue, white" for the set "light_blue, white"), in which such metrics would call every answer
    of that kind wrong. An answer that is written nowhere in the annotations, but is, commas apart, the normal form of
    one that is, becomes the most frequent of those; a note says of how many, for an official judge would call them
    wrong. All other answers stay as they are: for files written in the data set's own spelling nothing changes.
    """
    written = Counter(answer for record in submission.records for answer in record.answers)
    spelling: dict[str, str] = {}
    for answer in sorted(written, key=lambda answer: (-written[answer], answer)):
        spelling.setdefault(answer_key(answer), answer)
    answers = [
        answer if answer in written else spelling.get(answer.replace(",", ""), answer) for answer in submission.answers
    ]
    changed = [pair for pair in zip(submission.answers, answers, strict=True) if pair[0] != pair[1]]
    if not changed:
        return Spelled(answers, [])
    note = (
        f"{len(changed)} of {len(answers)} answers were respelled as the annotations spell them, for example "
        f"{changed[0][0]!r} as {changed[0][1]!r}; a judge that compares letter by letter counts them as wrong"
    )
    return Spelled(answers, [note])
