"""The record that every data set becomes, and the metric that judges records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coattn.text.answers import is_number, is_yes_no


@dataclass(frozen=True, slots=True)
class Record:
    """One question about one image.

    Attributes:
        question_id: integer or text, unique in its split.
        image_id: integer or text; feature stores look it up as text.
        question: the question as asked.
        answers: the human answers, unprocessed; empty when unknown (a test split).
        answer_type: for example "yes/no", "number", "other"; empty when unknown.
        question_type: for example "how many"; empty when unknown.
        split: for example "train"; empty when unknown.
        choices: the answers to choose from, in multiple-choice data sets.
        multiple_choice_answer: the answer that the data set names as the right one; empty when it names none.
        voters: empty, or one number per answer. Two numbers are equal if the answer entries differ in their text only.
        extra: all other values of the question, passed through. "group" names what must stay in one split (a patient).
    """

    question_id: int | str
    image_id: int | str
    question: str
    answers: tuple[str, ...] = ()
    answer_type: str = ""
    question_type: str = ""
    split: str = ""
    choices: tuple[str, ...] = ()
    multiple_choice_answer: str = ""
    voters: tuple[int, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The right answer that the data set names, else the most frequent (the first of several), else ""."""
        if self.multiple_choice_answer or not self.answers:
            return self.multiple_choice_answer
        return Counter(self.answers).most_common(1)[0][0]

    def answer_entries(self) -> list[dict[str, Any]]:
        """`[{"answer": text, "answer_id": number}, ...]`; two entries are equal if they are equal in the data set.

        The official VQA accuracy leaves out, for each answer, all entries that equal it in text, confidence and id. In
        a proper file the ids differ, so that this is the answer alone.
        """
        voters = self.voters or range(1, len(self.answers) + 1)
        return [{"answer": text, "answer_id": voter} for text, voter in zip(self.answers, voters, strict=True)]


def answer_type_of(answer: str) -> str:
    """The type of an answer of a data set that names none: "yes/no", "number" or "other"."""
    if is_yes_no(answer):
        return "yes/no"
    return "number" if is_number(answer) else "other"


# The metrics that may judge a data set, by the names that `coattn score` knows.
METRICS = (
    *("vqa_accuracy", "exact_match", "soft_accuracy", "multiple_choice", "textvqa", "gqa", "clevr", "wups", "anls"),
    *("vizwiz", "medical", "a_okvqa"),
)


def default_metric(records: Sequence[Record], *, several: str) -> str:
    """The metric of a data set that names none: `exact_match` if most questions have one answer, else `several`."""
    answered = [record for record in records if record.answers]
    single = sum(len(record.answers) == 1 for record in answered)
    return "exact_match" if 2 * single > len(answered) else several
