"""The numbers of a score, as an object, as JSON and as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ALL, ALSO = "all questions", "other numbers"
MAX_ROWS = 20  # of a block of the table


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a score, with two decimals as the official code rounds; in percent unless its name says otherwise.

    Attributes:
        value: the number; NaN where it is not defined, for example without any question to find.
        count: how many questions it is about.
        interval: its 95 % interval (`coattn.metrics.bootstrap`), or None where it was not asked for or is not known.
    """

    value: float
    count: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scores:
    """How good answers are.

    Attributes:
        metric: the name of the metric.
        numbers: every number, by the title of its block ("all questions", "answer type", "question type", further
            divisions, "other numbers") and its name.
        by_question: the worth of the answer to each question, in percent, by its id as text; questions that do not
            count are left out.
        notes: facts that the reader of the numbers needs.
        thresholds: the confidence from which on answering pays, by its cost, if confidences were given.
        tuned_here: whether the thresholds were chosen on these questions, which flatters the effective reliability.
    """

    metric: str
    numbers: dict[str, dict[str, Number]]
    by_question: dict[str, float]
    notes: Sequence[str] = ()
    thresholds: dict[int, float] = field(default_factory=dict)
    tuned_here: bool = True

    @property
    def overall(self) -> float:
        """The mean over all questions that count."""
        return self.numbers[ALL][self.metric].value

    @property
    def by_answer_type(self) -> dict[str, float]:
        """The mean over the questions of each answer type; questions without a type are left out."""
        return {name: number.value for name, number in self.numbers.get("answer type", {}).items()}

    @property
    def by_question_type(self) -> dict[str, float]:
        """The mean over the questions of each question type, likewise."""
        return {name: number.value for name, number in self.numbers.get("question type", {}).items()}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of questions of each kind of "answer type" and "question type"."""
        return {
            title: {name: number.count for name, number in self.numbers.get(title, {}).items()}
            for title in ("answer type", "question type")
        }

    def to_json(self) -> dict[str, Any]:
        """The scores as they are written to a file.

        metric, overall, by_answer_type, by_question_type, by_question; and every number again under "numbers" with its
        count of questions and, where there is one, its interval; "thresholds" by cost, null for abstaining always.
        """
        numbers = {
            title: {name: _number_to_json(number) for name, number in block.items()}
            for title, block in self.numbers.items()
        }
        return {
            "metric": self.metric,
            "overall": self.overall,
            "by_answer_type": self.by_answer_type,
            "by_question_type": self.by_question_type,
            "by_question": self.by_question,
            "numbers": numbers,
            "thresholds": {str(cost): _finite(threshold) for cost, threshold in self.thresholds.items()},
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """The scores as text for people, at most MAX_ROWS kinds of a division, the most frequent ones first."""
        blocks = {title: block for title, block in self.numbers.items() if block}
        width = max(len(name) for title, block in blocks.items() for name in (title, *block))
        lines = []
        for title, block in blocks.items():
            with_intervals = any(number.interval for number in block.values())
            what = "     value" if title == ALSO else "  accuracy"
            lines += ["", f"{title:<{width}}  questions{what}{'     95 % interval' if with_intervals else ''}"]
            rows = list(block.items())
            if title != ALSO:
                rows.sort(key=lambda row: (-row[1].count, row[0]))
            for name, number in rows[:MAX_ROWS]:
                row = f"{name:<{width}}  {number.count:>9}  {_shown(number.value):>8}"
                if number.interval is not None:
                    row += f"  {_shown(number.interval[0]):>6} - {_shown(number.interval[1]):>6}"
                lines.append(row)
            if rest := rows[MAX_ROWS:]:
                lines.append(f"{'...':<{width}}  {sum(number.count for _, number in rest):>9}  in {len(rest)} more")
        notes = [*self.notes]
        if self.thresholds and self.tuned_here:
            notes.append("the thresholds of effective reliability were chosen on these questions, which flatters it")
        return "\n".join([*lines[1:], *(f"\nnote: {note}" for note in notes)])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _number_to_json(number: Number) -> dict[str, Any]:
    value = {"value": _finite(number.value), "questions": number.count}
    return value | ({"interval": [*map(_finite, number.interval)]} if number.interval else {})
