"""The score of a result file: overall, by answer type, by question type and by question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coattn.datasets.records import Record
from coattn.datasets.vqa_json import METRICS
from coattn.metrics.vqa import exact_match, vqa_accuracy

_ACCURACIES: dict[str, Callable[[str, Record], float]] = {
    "vqa_accuracy": lambda prediction, record: vqa_accuracy(prediction, record.answer_entries()),
    "exact_match": lambda prediction, record: exact_match(prediction, record.answer),
}


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent with two decimals, as the official code rounds them.

    Attributes:
        metric: the name of the metric.
        overall: the mean over all questions.
        by_answer_type: the mean over the questions of each answer type; questions without a type are in none.
        by_question_type: the mean over the questions of each question type, likewise.
        by_question: the accuracy of each question, by its id as text.
        counts: how many questions "answer type" and "question type" have of each kind.
    """

    metric: str
    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    by_question: dict[str, float]
    counts: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """The scores as they are written to a file: metric, overall, by_answer_type, by_question_type, by_question."""
        return {
            "metric": self.metric,
            "overall": self.overall,
            "by_answer_type": self.by_answer_type,
            "by_question_type": self.by_question_type,
            "by_question": self.by_question,
        }

    def table(self) -> str:
        """The scores as text for people, the most frequent types first."""
        blocks = [("all questions", {self.metric: len(self.by_question)}, {self.metric: self.overall})]
        blocks += [("answer type", self.counts["answer type"], self.by_answer_type)]
        blocks += [("question type", self.counts["question type"], self.by_question_type)]
        blocks = [block for block in blocks if block[1]]
        width = max(len(name) for title, counts, _ in blocks for name in (title, *counts))
        lines = []
        for title, counts, accuracies in blocks:
            lines += ["", f"{title:<{width}}  questions  accuracy"]
            for name in sorted(counts, key=lambda name: (-counts[name], name)):
                lines.append(f"{name:<{width}}  {counts[name]:>9}  {accuracies[name]:>8.2f}")
        return "\n".join(lines[1:])


def score(
    results: Mapping[int | str, str], records: Sequence[Record], metric: str, *, where: str = "results"
) -> Scores:
    """Score predicted answers against the human ones, as the official code does.

    Args:
        results: the predicted answer of each question id; ids are compared as text, so 7 and "7" are the same question.
        records: the questions with their answers. Each must have a result, and each result its question.
        metric: one of `coattn.datasets.vqa_json.METRICS`: `vqa_accuracy`, the official one, or `exact_match` with the
            record's one answer.
        where: what the results are called in error messages, for example their file.

    Raises:
        ValueError: results and questions do not correspond, a question has no human answer, there are no questions, or
            the metric is unknown.
    """
    if metric not in _ACCURACIES:
        raise ValueError(f"metric is {metric!r}, must be one of {', '.join(METRICS)}")
    predictions = _paired(results, records, where)
    accuracies: dict[str, float] = {}
    by_answer_type: dict[str, list[float]] = defaultdict(list)
    by_question_type: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if not record.answers:
            raise ValueError(
                f"question_id {record.question_id!r} has no human answer to score against; give annotations"
            )
        accuracy = _ACCURACIES[metric](predictions[str(record.question_id)], record)
        accuracies[str(record.question_id)] = accuracy
        if record.answer_type:
            by_answer_type[record.answer_type].append(accuracy)
        if record.question_type:
            by_question_type[record.question_type].append(accuracy)
    return Scores(
        metric=metric,
        overall=_percent(accuracies.values()),
        by_answer_type={name: _percent(values) for name, values in by_answer_type.items()},
        by_question_type={name: _percent(values) for name, values in by_question_type.items()},
        by_question={question_id: _percent([accuracy]) for question_id, accuracy in accuracies.items()},
        counts={
            "answer type": {name: len(values) for name, values in by_answer_type.items()},
            "question type": {name: len(values) for name, values in by_question_type.items()},
        },
    )


def _paired(results: Mapping[int | str, str], records: Sequence[Record], where: str) -> dict[str, str]:
    """The predictions by question id as text, if there is exactly one for each record."""
    if not records:
        raise ValueError(f"{where}: there are no questions to score")
    predictions = {str(question_id): answer for question_id, answer in results.items()}
    if len(predictions) < len(results):
        both = next(
            question_id for question_id in results if isinstance(question_id, int) and str(question_id) in results
        )
        raise ValueError(f"{where}: question_id {both} is answered twice, as number and as text; keep one")
    asked = {str(record.question_id): record.question_id for record in records}
    missing = [question_id for key, question_id in asked.items() if key not in predictions]
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} of {len(asked)} questions have no result, for example question_id "
            f"{missing[0]!r}; give one answer per annotated question"
        )
    unknown = [question_id for question_id in results if str(question_id) not in asked]
    if unknown:
        raise ValueError(
            f"{where}: {len(unknown)} of {len(results)} results answer no annotated question, for example question_id "
            f"{unknown[0]!r}; score against the questions that were predicted, or remove these results"
        )
    return predictions


def _percent(accuracies: Iterable[float]) -> float:
    values = list(accuracies)
    return round(100 * sum(values) / len(values), 2)
