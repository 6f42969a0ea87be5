"""Several sets of answers to the same questions side by side, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.bootstrap import Difference, Images, paired_test
from coattn.metrics.score import judge, summarize
from coattn.metrics.scores import ALL, Number, Scores


@dataclass(frozen=True)
class Comparison:
    """The scores of several sets of answers, and how far the first differs from each other one.

    Attributes:
        metric: The metric that judged them.
        scores: The scores of each, by its name; the first is the one that the others are compared with.
        differences: For all questions and for each kind, the first minus each other one, by its name, in points.
        kinds: The division into kinds: "answer type"; "question type" where all answers have one type; "" where all
            questions have one type too.
    """

    metric: str
    scores: dict[str, Scores]
    differences: dict[str, dict[str, Difference]]
    kinds: str = "answer type"

    def number(self, name: str, group: str) -> Number:
        """The score of one set of answers on all questions, or on those of a kind."""
        numbers = self.scores[name].numbers
        return numbers[ALL][self.metric] if group == ALL else numbers[self.kinds][group]

    def rows(self) -> list[list[str]]:
        """The comparison as the cells of a table with titles: the scores, and the first minus the second."""
        first, second, *_ = self.scores
        rows = [["", "questions", *self.scores, f"{first} - {second}"]]
        for group, differences in self.differences.items():
            row = [group, str(self.number(first, group).count)]
            for name in self.scores:
                number = self.number(name, group)
                interval = "" if number.interval is None else " ({:.1f}-{:.1f})".format(*number.interval)
                row.append(f"{number.value:.1f}{interval}")
            value, low, high, p_value = differences[second]
            rows.append([*row, f"{value:+.1f} ({low:+.1f} to {high:+.1f}), p = {p_value:.2g}"])
        return rows

    def table(self) -> str:
        """The comparison as text."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        """The comparison as a table in Markdown."""
        titles, *rows = (f"| {' | '.join(row)} |" for row in self.rows())
        lines = [titles, "|" + "---|" * (len(self.scores) + 3), *rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    @property
    def note(self) -> str:
        """The reason why the questions are not divided by answer type; empty if they are."""
        if self.kinds == "answer type":
            return ""
        reason = "All answers have one type (only yes, no and numbers are recognized, in English)"
        if self.kinds:
            return f"{reason}: the questions are divided by their own type."
        return f"{reason}, and so have all questions. A table may divide them by columns answer_type and question_type."

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values for a JSON file."""
        return {
            "metric": self.metric,
            "kinds": self.kinds,
            "scores": {name: scores.to_json() for name, scores in self.scores.items()},
            "differences": {
                group: {other: difference._asdict() for other, difference in differences.items()}
                for group, differences in self.differences.items()
            },
        }


def compare_answers(
    answers: Mapping[str, Results], records: Sequence[Record], metric: str, *, num_samples: int = 1000
) -> Comparison:
    """Score several sets of answers to the same questions, and test the first against each other one.

    Intervals are those of a bootstrap by image, p-values those of a sign-flip test by image; see `metrics.bootstrap`.

    Args:
        answers: Sets of answers by name, each with one answer to every question.
        records: The questions with the human answers.
        metric: A name in `coattn.metrics.score.METRICS`.
        num_samples: The number of bootstrap samples.

    Raises:
        ValueError: Answers and questions do not correspond, or as the metric says.
    """
    judged = {name: judge(results, records, metric, where=name) for name, results in answers.items()}
    scores = {
        name: summarize(judged[name], results, records, metric, num_samples=num_samples)
        for name, results in answers.items()
    }
    images = Images([record.image_id for record in records])
    first, *others = judged
    divisions = {
        "answer type": [record.answer_type for record in records],
        "question type": [record.question_type for record in records],
    }
    kinds = next((kinds for kinds in divisions if len(scores[first].numbers[kinds]) > 1), "")
    counted = scores[first].numbers[kinds] if kinds else {}
    types = np.array(divisions.get(kinds, []))
    differences: dict[str, dict[str, Difference]] = {}
    for group in [ALL, *sorted(counted, key=lambda name: -counted[name].count)]:
        inside = np.ones(len(records), bool) if group == ALL else types == group
        differences[group] = {}
        for other in others:
            one, two = (np.where(inside, judged[name].worth, np.nan) for name in (first, other))
            value, low, high, p_value = paired_test(one, two, images, num_samples=num_samples)
            differences[group][other] = Difference(100 * value, 100 * low, 100 * high, p_value)
    return Comparison(metric, scores, differences, kinds)
