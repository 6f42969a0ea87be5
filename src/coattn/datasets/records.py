"""The record that every data set becomes."""

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
        choices: the answers to choose from, in multiple-choice sets.
        multiple_choice_answer: the answer that the data set names as the one; empty when it names none.
        voters: empty, or one number per answer: equal where the data set's answer entries agree in all but the text.
        extra: everything else that the data set says of the question, passed through.
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
        """The one answer: as the data set names it, else the most frequent (the first of several), else ""."""
        if self.multiple_choice_answer or not self.answers:
            return self.multiple_choice_answer
        return Counter(self.answers).most_common(1)[0][0]

    def answer_entries(self) -> list[dict[str, Any]]:
        """`[{"answer": text, "answer_id": number}, ...]`, two of them equal exactly where the data set's entries are.

        The official VQA accuracy leaves out, for each answer, all entries equal to it as a whole: text, confidence and
        id. In a proper file ids differ and that is the answer alone; where ids repeat it is more.
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
    lone = sum(len(record.answers) == 1 for record in records)
    return "exact_match" if 2 * lone > len(records) else several
