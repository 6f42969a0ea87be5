"""The input of every metric, the answers to a split, and its result: how much each answer is worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from coattn.datasets.records import Record
from coattn.text.answers import answer_key, plain_key

Kind = TypeVar("Kind", dict, list, bool)

# Signs that change the meaning of an answer and that the normal form of VQA deletes.
_SIGN = re.compile(r"[+<>=*±≤≥]|(?<!\w)[-−]|-(?!\w)|\bnone\b", re.IGNORECASE)

_KINDS = {dict: "an object", list: "a list", bool: "true or false"}


@dataclass(frozen=True)
class Submission:
    """Answers to be judged.

    Attributes:
        records: the questions with their human answers; every one has at least one.
        answers: the answer to each, in the same order.
        answerable: (N,) how likely each question can be answered at all, or None if the results do not say it.
        choices: GQA's choices file, or None.
        where: the name of the answers in messages, for example their file.
        chosen: the choice for each question, in the same order, where the results name it beside the answer.
    """

    records: Sequence[Record]
    answers: Sequence[str]
    answerable: np.ndarray | None = None
    choices: Mapping[str, Any] | None = None
    where: str = "results"
    chosen: Sequence[str] | None = None


class Spelled(NamedTuple):
    """Answers in the spelling of the annotations, and a note if that changed any."""

    answers: list[str]
    notes: list[str]


class Statistic(NamedTuple):
    """Numbers that are not means over questions.

    Attributes:
        names: their K names.
        num_questions: how many questions they are about.
        compute: from how often each question counts, (N,) integers, to the K numbers as they are shown. A question that
            counts twice must have the effect of two copies of it.
    """

    names: tuple[str, ...]
    num_questions: int
    compute: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Judgement:
    """How good answers are.

    Attributes:
        worth: (N,) float64 the worth of each answer, in [0, 1]; NaN where the question does not count.
        groups: by the name of a division, the part that each of the N questions belongs to, "" for none; the mean of
            `worth` over each part is reported.
        means: further values (N,) by name, NaN where they do not apply; their means are reported, in percent.
        statistics: further numbers.
        notes: facts that the reader of the numbers needs.
    """

    worth: np.ndarray
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    means: Mapping[str, np.ndarray] = field(default_factory=dict)
    statistics: Sequence[Statistic] = ()
    notes: Sequence[str] = ()


def extra(record: Record, key: str, kind: type[Kind]) -> Kind:
    """A field that a data set keeps for a question beside the usual ones: its value, or an empty one if absent.

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

    A model that answers in the normal form of VQA writes "t shirt" for "t-shirt", and "light blue, white" for the set
    "light_blue, white"; such metrics would call every answer of that kind wrong. An answer that occurs nowhere in the
    annotations, but is (commas apart) the normal form of one that does, becomes the most frequent of those. Signs are
    kept: "HER2" never becomes "HER2+". A note says how many answers were respelled, because an official judge would
    call them wrong. All other answers stay, so that nothing changes for files in the data set's own spelling.
    """
    written = Counter(answer for record in submission.records for answer in record.answers)
    spelling: dict[str, str] = {}
    for answer in sorted(written, key=lambda answer: (-written[answer], answer)):
        spelling.setdefault(plain_key(answer) if _SIGN.search(answer) else answer_key(answer), answer)
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
