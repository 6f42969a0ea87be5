"""Scoring of a result file: overall, by kind of question and by question, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coattn._internal.hints import did_you_mean
from coattn.datasets.doubt import Doubt
from coattn.datasets.leaks import find_exposures
from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.anls import judge_anls
from coattn.metrics.bootstrap import (
    LEAST_IMAGES,
    Difference,
    Images,
    intervals,
    mean_samples,
    paired_test,
    statistic_samples,
    wilson_interval,
)
from coattn.metrics.clevr import judge_clevr
from coattn.metrics.confidence import COSTS, best_threshold, confidence_statistic, effective_reliability
from coattn.metrics.gqa import judge_gqa
from coattn.metrics.judgement import Judgement, Statistic, Submission
from coattn.metrics.medical import judge_medical
from coattn.metrics.scores import ALL, ALSO, Number, Scores
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


def score(
    results: Mapping[int | str, str] | Results,
    records: Sequence[Record],
    metric: str,
    *,
    where: str = "results",
    choices: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    thresholds: Mapping[int, float] | None = None,
    num_samples: int = 0,
) -> Scores:
    """Score predicted answers against the human ones, as the official code does.

    Args:
        results: the predicted answer of each question id, or `Results`, which may hold confidences too; ids are
            compared as text, so 7 and "7" are the same question.
        records: the questions with their answers. Each must have a result, and each result its question.
        metric: a name in METRICS.
        where: the name of the results in error messages, for example their file.
        choices: GQA's choices file as an object, for validity and plausibility.
        groups: further divisions of the questions, by title, the part of each record (`column_groups`,
            `seen_groups`); their means are reported too.
        thresholds: the confidence from which on answering pays, by cost, found on other questions
            (`Scores.thresholds` of validation); chosen here if not given.
        num_samples: of the bootstrap for the intervals; 0 for none.

    Raises:
        ValueError: results and questions do not correspond, a question has no human answer, there are no questions or
            none of them counts, the metric is unknown, or data that it needs is missing.
    """
    results = results if isinstance(results, Results) else Results(results)
    judgement = judge(results, records, metric, where=where, choices=choices, groups=groups)
    return summarize(judgement, results, records, metric, thresholds=thresholds, num_samples=num_samples)


def judge(
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    where: str = "results",
    choices: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Judgement:
    """The worth of each answer, for `summarize` and `compare`; see `score`."""
    judged_by = judge_called(metric)
    answers = _paired(results.answers, records, where)
    for record in records:
        if not record.answers:
            raise ValueError(
                f"question_id {record.question_id!r} has no human answer to score against; give annotations"
            )
    chosen = None if not results.chosen else _paired(results.chosen, records, where)
    judged = judged_by(Submission(records, answers, aligned(results.answerable, records), choices, where, chosen))
    return replace(judged, groups={**judged.groups, **(groups or {}), **_doubt_groups(results, records)})


def column_groups(records: Sequence[Record], column: str) -> list[str]:
    """The value of each record in a column of the data set, as text; "" where it has none.

    More than 20 different numbers are divided into five ranges of about as many records each.

    Args:
        records: the questions.
        column: a key of the records' `extra`, or one of answer_type, question_type, split and image_id.

    Raises:
        ValueError: no record has this column.
    """
    always = ("answer_type", "question_type", "split", "image_id")
    if column in always:
        return [str(getattr(record, column)) for record in records]
    values = [record.extra.get(column) for record in records]
    if all(value is None for value in values):
        known = dict.fromkeys((*always, *(key for record in records for key in record.extra)))
        raise ValueError(f"no question has a column {column!r}{did_you_mean(column, known)}")
    return _in_ranges(["" if value is None else str(value) for value in values])


def _in_ranges(values: list[str]) -> list[str]:
    """Many different numbers by the range that each is in; other values unchanged."""
    try:
        numbers = np.array([float(value or "nan") for value in values])
    except ValueError:
        return values
    given = numbers[np.isfinite(numbers)]
    if len(np.unique(given)) <= 20:
        return values
    edges = np.quantile(given, (0.2, 0.4, 0.6, 0.8))
    ranges = [given[np.searchsorted(edges, given) == place] for place in range(5)]
    names = [f"{inside.min():.15g} to {inside.max():.15g}" if len(inside) else "" for inside in ranges]
    return [
        names[place] if finite else ""
        for place, finite in zip(np.searchsorted(edges, numbers).tolist(), np.isfinite(numbers).tolist(), strict=True)
    ]


def seen_groups(training: Sequence[Record], records: Sequence[Record]) -> dict[str, list[str]]:
    """Which questions training has seen: their image, their text, and their text about that very image."""
    seen = find_exposures(training, records)
    return {
        "image in training": ["seen" if one.image else "unseen" for one in seen],
        "question in training": ["seen" if one.question else "unseen" for one in seen],
        "question on its image in training": [one.repeated or "unseen" for one in seen],
    }


def _doubt_groups(results: Results, records: Sequence[Record]) -> dict[str, list[str]]:
    """Which answers are withheld, and which are doubted, if any are."""
    doubts = {str(question_id): doubt for question_id, doubt in results.doubts.items()}
    of_records = [doubts.get(str(record.question_id), Doubt()) for record in records]
    groups = {}
    if any(doubt.withheld for doubt in of_records):
        groups["answered or withheld"] = ["withheld" if doubt.withheld else "answered" for doubt in of_records]
    if any(doubt.reasons for doubt in of_records):
        groups["doubted or not"] = ["doubted" if doubt.reasons else "not doubted" for doubt in of_records]
    return groups


def judge_called(metric: str) -> Callable[[Submission], Judgement]:
    """The metric of that name.

    Raises:
        ValueError: the name is unknown.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}{did_you_mean(metric, METRICS)}")
    return METRICS[metric]


def summarize(
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
    images = Images([record.image_id for record in records])
    numbers = _numbers(columns, statistics, images, num_samples)
    ids = [str(records[place].question_id) for place in counted.tolist()]
    by_question = dict(zip(ids, (round(100 * value, 2) for value in judgement.worth[counted].tolist()), strict=True))
    notes = [*judgement.notes]
    if num_samples and any(len(np.unique(images.of[c.places])) < LEAST_IMAGES for c in columns):
        notes.append(
            f"numbers about fewer than {LEAST_IMAGES} images have the interval of Wilson (1927) with images as units, "
            "or none"
        )
    return Scores(metric, numbers, by_question, notes, chosen, thresholds is None)


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
    columns = [_Column(ALL, metric, counted, judgement.worth[counted])]
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
            columns.append(_Column(ALSO, name, known, values[known]))
    return columns


def _numbers(
    columns: Sequence[_Column], statistics: Sequence[Statistic], images: Images, num_samples: int
) -> dict[str, dict[str, Number]]:
    """Every number, with its interval if samples are wanted."""
    numbers: dict[str, dict[str, Number]] = {ALL: {}, "answer type": {}, "question type": {}}
    bounds: list[tuple[float, float] | None] = [None] * len(columns)
    if num_samples and columns:
        numbered = [np.full(len(column.places), number) for number, column in enumerate(columns)]
        cells = np.stack([np.concatenate([column.places for column in columns]), np.concatenate(numbered)])
        values = np.concatenate([column.values for column in columns])
        samples = 100 * mean_samples(images, values, cells, len(columns), num_samples=num_samples)
        bounds = [_for_few(*pair, images) for pair in zip(_rounded(samples), columns, strict=True)]
    for column, interval in zip(columns, bounds, strict=True):
        number = Number(_percent(column.values.tolist()), len(column.places), interval)
        numbers.setdefault(column.title, {})[column.name] = number
    if statistics:
        once = np.ones(len(images.of), np.int64)
        values = np.concatenate([statistic.compute(once) for statistic in statistics]).tolist()
        bounds = [None] * len(values)
        if num_samples and images.count >= LEAST_IMAGES:
            bounds = [*_rounded(statistic_samples(images, statistics, num_samples=num_samples))]
        named = [(name, statistic.num_questions) for statistic in statistics for name in statistic.names]
        for (name, count), value, interval in zip(named, values, bounds, strict=True):
            numbers.setdefault(ALSO, {})[name] = Number(round(value, 2), count, interval)
    return numbers


def _for_few(interval: tuple[float, float], column: _Column, images: Images) -> tuple[float, float] | None:
    """The interval of a mean; Wilson's where images are few or all values equal, for which the bootstrap has none."""
    count = len(np.unique(images.of[column.places]))
    if count >= LEAST_IMAGES and interval[0] < interval[1]:
        return interval
    if column.values.min() < 0 or column.values.max() > 1:
        return None
    low, high = wilson_interval(float(column.values.mean()), count)
    return round(100 * low, 2), round(100 * high, 2)


def _on(places: np.ndarray, statistic: Statistic) -> Statistic:
    """A statistic of some of the questions as one of all."""
    return statistic._replace(compute=lambda weights: statistic.compute(weights[places]))


def _rounded(samples: np.ndarray) -> list[tuple[float, float]]:
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
