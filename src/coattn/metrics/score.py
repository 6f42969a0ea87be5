"""The score of a result file: overall, by kind of question and by question, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.anls import judge_anls
from coattn.metrics.bootstrap import Difference, Images, intervals, mean_samples, paired_test, statistic_samples
from coattn.metrics.clevr import judge_clevr
from coattn.metrics.confidence import COSTS, best_threshold, confidence_statistic, effective_reliability
from coattn.metrics.gqa import judge_gqa
from coattn.metrics.judgement import Judgement, Statistic, Submission
from coattn.metrics.medical import judge_medical
from coattn.metrics.vizwiz import judge_vizwiz
from coattn.metrics.vqa import (
    judge_a_okvqa,
    judge_exact_match,
    judge_multiple_choice,
    judge_soft,
    judge_textvqa,
    judge_vqa,
)
from coattn.metrics.wups import judge_wups

METRICS: dict[str, Callable[[Submission], Judgement]] = {
    "vqa_accuracy": judge_vqa,
    "exact_match": judge_exact_match,
    "soft_accuracy": judge_soft,
    "multiple_choice": judge_multiple_choice,
    "textvqa": judge_textvqa,
    "gqa": judge_gqa,
    "clevr": judge_clevr,
    "wups": judge_wups,
    "anls": judge_anls,
    "vizwiz": judge_vizwiz,
    "medical": judge_medical,
    "a_okvqa": judge_a_okvqa,
}

_ALL, _ALSO = "all questions", "other numbers"


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a score, with two decimals as the official code rounds; in percent unless its name says otherwise.

    Attributes:
        value: the number; NaN where it is not defined, for example without any question to find.
        count: how many questions it is about.
        interval: its 95 % interval (`coattn.metrics.bootstrap`), or None where it was not asked for.
    """

    value: float
    count: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scores:
    """How good answers are.

    Attributes:
        metric: the name of the metric.
        numbers: every number, by what it is about ("all questions", "answer type", "question type", what else the
            metric tells apart, "other numbers") and its name.
        by_question: what the answer to each question is worth, in percent, by its id as text; questions that do not
            count are in none.
        notes: what the reader of the numbers should know.
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
        return self.numbers[_ALL][self.metric].value

    @property
    def by_answer_type(self) -> dict[str, float]:
        """The mean over the questions of each answer type; questions without a type are in none."""
        return {name: number.value for name, number in self.numbers.get("answer type", {}).items()}

    @property
    def by_question_type(self) -> dict[str, float]:
        """The mean over the questions of each question type, likewise."""
        return {name: number.value for name, number in self.numbers.get("question type", {}).items()}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many questions "answer type" and "question type" have of each kind."""
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
        """The scores as text for people, the most frequent kinds first."""
        blocks = {title: block for title, block in self.numbers.items() if block}
        width = max(len(name) for title, block in blocks.items() for name in (title, *block))
        lines = []
        for title, block in blocks.items():
            with_intervals = any(number.interval for number in block.values())
            what = "     value" if title == _ALSO else "  accuracy"
            lines += ["", f"{title:<{width}}  questions{what}{'     95 % interval' if with_intervals else ''}"]
            rows = list(block.items())
            if title != _ALSO:
                rows.sort(key=lambda row: (-row[1].count, row[0]))
            for name, number in rows:
                row = f"{name:<{width}}  {number.count:>9}  {_shown(number.value):>8}"
                if number.interval is not None:
                    row += f"  {_shown(number.interval[0]):>6} - {_shown(number.interval[1]):>6}"
                lines.append(row)
        notes = [*self.notes]
        if self.thresholds and self.tuned_here:
            notes.append("the thresholds of effective reliability were chosen on these questions, which flatters it")
        return "\n".join([*lines[1:], *(f"\nnote: {note}" for note in notes)])


def score(
    results: Mapping[int | str, str] | Results,
    records: Sequence[Record],
    metric: str,
    *,
    where: str = "results",
    choices: Mapping[str, Any] | None = None,
    thresholds: Mapping[int, float] | None = None,
    num_samples: int = 0,
) -> Scores:
    """Score predicted answers against the human ones, as the official code does.

    Args:
        results: the predicted answer of each question id, or `Results`, which may hold confidences too; ids are
            compared as text, so 7 and "7" are the same question.
        records: the questions with their answers. Each must have a result, and each result its question.
        metric: a name in METRICS.
        where: what the results are called in error messages, for example their file.
        choices: GQA's choices file as an object, for validity and plausibility.
        thresholds: the confidence from which on answering pays, by cost, found on other questions
            (`Scores.thresholds` of validation); chosen here if not given.
        num_samples: of the bootstrap for the intervals; 0 for none.

    Raises:
        ValueError: results and questions do not correspond, a question has no human answer, there are no questions or
            none of them counts, the metric is unknown, or what it needs is not there.
    """
    results = results if isinstance(results, Results) else Results(results)
    judgement = judge(results, records, metric, where=where, choices=choices)
    return summarise(judgement, results, records, metric, thresholds=thresholds, num_samples=num_samples)


def judge(
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    where: str = "results",
    choices: Mapping[str, Any] | None = None,
) -> Judgement:
    """What each answer is worth, for `summarise` and `compare`; see `score`."""
    judged_by = judge_called(metric)
    answers = _paired(results.answers, records, where)
    for record in records:
        if not record.answers:
            raise ValueError(
                f"question_id {record.question_id!r} has no human answer to score against; give annotations"
            )
    return judged_by(Submission(records, answers, aligned(results.answerable, records), choices, where))


def judge_called(metric: str) -> Callable[[Submission], Judgement]:
    """The metric of that name.

    Raises:
        ValueError: there is none.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, must be one of {', '.join(METRICS)}")
    return METRICS[metric]


def summarise(
    judgement: Judgement,
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    thresholds: Mapping[int, float] | None = None,
    num_samples: int = 0,
) -> Scores:
    """The numbers of a judgement; see `score`."""
    counted = np.flatnonzero(~np.isnan(judgement.worth))
    if not len(counted):
        raise ValueError(
            f"none of the {len(records)} questions counts for the metric {metric}; choose another --metric"
        )
    statistics, means = [*judgement.statistics], {**judgement.means}
    confidence = aligned(results.confidences, records)
    chosen: dict[int, float] = {}
    if confidence is not None:
        sure, worth = confidence[counted], judgement.worth[counted]
        statistics.append(_on(counted, confidence_statistic(sure, worth)))
        chosen = {cost: best_threshold(sure, worth, cost) for cost in COSTS} if thresholds is None else {**thresholds}
        for cost, threshold in chosen.items():
            means[f"effective reliability at cost {cost}"] = np.where(
                np.isnan(judgement.worth), np.nan, effective_reliability(confidence, judgement.worth, cost, threshold)
            )
    columns = _columns(judgement, records, metric, means, counted)
    numbers = _numbers(columns, statistics, records, num_samples)
    ids = [str(records[place].question_id) for place in counted.tolist()]
    by_question = dict(zip(ids, (round(100 * value, 2) for value in judgement.worth[counted].tolist()), strict=True))
    return Scores(metric, numbers, by_question, judgement.notes, chosen, thresholds is None)


def compare(
    first: Judgement, second: Judgement, records: Sequence[Record], metric: str, *, num_samples: int
) -> dict[str, Difference]:
    """The paired differences of two judgements of the same questions, by name: the metric's own, and further means.

    In points of percent; see `coattn.metrics.bootstrap.paired_test`. A mean that is about other questions in one than
    in the other, as GQA's consistency may be, has no pairs and is left out.
    """
    images = Images([record.image_id for record in records])
    pairs = {metric: (first.worth, second.worth)}
    pairs |= {name: (values, second.means[name]) for name, values in first.means.items() if name in second.means}
    differences = {}
    for name, (one, other) in pairs.items():
        if np.isnan(one).all() or not np.array_equal(np.isnan(one), np.isnan(other)):
            continue
        value, low, high, p_value = paired_test(one, other, images, num_samples=num_samples)
        differences[name] = Difference(100 * value, 100 * low, 100 * high, p_value)
    return differences


@dataclass(frozen=True, slots=True)
class _Column:
    """A mean to be taken: the questions it is about, and their values."""

    title: str
    name: str
    places: np.ndarray
    values: np.ndarray


def _columns(
    judgement: Judgement, records: Sequence[Record], metric: str, means: Mapping[str, np.ndarray], counted: np.ndarray
) -> list[_Column]:
    groups: dict[str, Sequence[str]] = {
        "answer type": [record.answer_type for record in records],
        "question type": [record.question_type for record in records],
        **judgement.groups,
    }
    columns = [_Column(_ALL, metric, counted, judgement.worth[counted])]
    for title, kinds in groups.items():
        places: dict[str, list[int]] = {}
        for place in counted.tolist():
            if kinds[place]:
                places.setdefault(kinds[place], []).append(place)
        for name, inside in places.items():
            columns.append(_Column(title, name, np.array(inside), judgement.worth[inside]))
    for name, values in means.items():
        known = np.flatnonzero(~np.isnan(values))
        if len(known):
            columns.append(_Column(_ALSO, name, known, values[known]))
    return columns


def _numbers(
    columns: Sequence[_Column], statistics: Sequence[Statistic], records: Sequence[Record], num_samples: int
) -> dict[str, dict[str, Number]]:
    """Every number, with its interval if samples are wanted."""
    numbers: dict[str, dict[str, Number]] = {_ALL: {}, "answer type": {}, "question type": {}}
    images = Images([record.image_id for record in records])
    bounds: list[tuple[float, float] | None] = [None] * len(columns)
    if num_samples:
        numbered = [np.full(len(column.places), number) for number, column in enumerate(columns)]
        cells = np.stack([np.concatenate([column.places for column in columns]), np.concatenate(numbered)])
        values = np.concatenate([column.values for column in columns])
        bounds = _rounded(100 * mean_samples(images, values, cells, len(columns), num_samples=num_samples))
    for column, interval in zip(columns, bounds, strict=True):
        number = Number(_percent(column.values.tolist()), len(column.places), interval)
        numbers.setdefault(column.title, {})[column.name] = number
    if statistics:
        once = np.ones(len(records), np.int64)
        values = np.concatenate([statistic.compute(once) for statistic in statistics]).tolist()
        bounds = [None] * len(values)
        if num_samples:
            bounds = _rounded(statistic_samples(images, statistics, num_samples=num_samples))
        named = [(name, statistic.num_questions) for statistic in statistics for name in statistic.names]
        for (name, count), value, interval in zip(named, values, bounds, strict=True):
            numbers.setdefault(_ALSO, {})[name] = Number(round(value, 2), count, interval)
    return numbers


def _on(places: np.ndarray, statistic: Statistic) -> Statistic:
    """A statistic of some of the questions as one of all."""
    return statistic._replace(compute=lambda weights: statistic.compute(weights[places]))


def _rounded(samples: np.ndarray) -> list[tuple[float, float] | None]:
    return [(round(low, 2), round(high, 2)) for low, high in intervals(samples).tolist()]


def _paired(results: Mapping[int | str, str], records: Sequence[Record], where: str) -> list[str]:
    """The predictions in the order of the records, if there is exactly one for each."""
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
    return [predictions[key] for key in asked]


def aligned(values: Mapping[int | str, float], records: Sequence[Record]) -> np.ndarray | None:
    """Values by question id in the order of the records; None if there are none."""
    if not values:
        return None
    by_text = {str(question_id): value for question_id, value in values.items()}
    return np.array([by_text[str(record.question_id)] for record in records])


def _percent(values: Iterable[float]) -> float:
    values = list(values)
    return round(100 * sum(values) / len(values), 2)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _number_to_json(number: Number) -> dict[str, Any]:
    value = {"value": _finite(number.value), "questions": number.count}
    return value | ({"interval": [*map(_finite, number.interval)]} if number.interval else {})
