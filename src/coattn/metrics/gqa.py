"""GQA's suite of numbers (Hudson & Manning 2019, arXiv 1902.09506, section 4.4), as its official script takes them.

Written from the behavior of that script (https://cs.stanford.edu/people/dorarad/gqa/evaluate.html, version 1.1+):

- Everything is counted over balanced questions (`isBalanced`); the others only serve consistency.
- An answer is right if it is the gold answer letter by letter (but see `coattn.metrics.judgement.as_annotated`).
- Questions of structural type "query" are open, all others binary.
- *Consistency*: over the balanced questions answered rightly that entail others than themselves, the mean share of
  those answered rightly. It needs the answers to all questions, so it is left out if an entailed one is missing.
- *Validity* and *plausibility*: the share of answers that are in the question's lists of the choices file; of a
  question whose detailed type holds "Common", in "color", "material", "shape" instead, a quirk of the script.
- *Distribution*: chi-square of predicted against gold answers within each global group, over the gold answers of the
  group, averaged with the groups' numbers of questions as weights, divided by 100. Lower is better.

Grounding is left out, because it judges attention maps and not answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from coattn.datasets.records import Record
from coattn.metrics.judgement import Judgement, Statistic, Submission, as_annotated, extra

_FREE_STEPS = ("exist", "query: name", "choose name")  # steps that ask, which do not count as reasoning
_COMMON = ("color", "material", "shape")


def judge_gqa(submission: Submission) -> Judgement:
    """Accuracy, binary and open, consistency, distribution, with --choices validity and plausibility (GQA).

    The questions' `types`, `groups`, `semantic`, `entailed` and `isBalanced` are taken from the records' `extra`, under
    the names of GQA's files. A number that needs a key which no record has is left out, with a note.

    Raises:
        ValueError: no question is balanced, or the choices file lacks a question.
    """
    records, (answers, respelled) = submission.records, as_annotated(submission)
    right = np.array([float(answer == record.answer) for answer, record in zip(answers, records, strict=True)])
    balanced = np.array([bool(record.extra.get("isBalanced", True)) for record in records])
    if not balanced.any():
        raise ValueError(f"{submission.where}: none of the {len(records)} questions is balanced; GQA counts only those")
    structural = [_type(record, "structural") for record in records]
    groups = {
        "binary or open": [kind and ("open" if kind == "query" else "binary") for kind in structural],
        "structural type": structural,
        "semantic type": [_type(record, "semantic") for record in records],
        "reasoning steps": [_steps(record) for record in records],
        "words": [str(len(record.question.split())) for record in records],
    }
    means, notes = _consistency(records, right, balanced)
    if submission.choices is not None:
        means |= _belonging(submission.choices, records, answers, balanced)
    statistics = []
    if any(record.extra.get("groups") for record in records):
        statistics.append(_distribution(records, answers, balanced))
    if not any(structural):
        notes.append("no question has GQA's 'types': binary and open questions are not told apart")
    return Judgement(np.where(balanced, right, np.nan), groups, means, statistics, [*notes, *respelled])


def _type(record: Record, name: str) -> str:
    return str(extra(record, "types", dict).get(name) or "")


def _steps(record: Record) -> str:
    """The number of reasoning steps, without the steps that only ask."""
    steps = extra(record, "semantic", list)
    if not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"question_id {record.question_id!r}: 'semantic' is {steps!r}, must be a list of objects")
    texts = [f"{step.get('operation')}: {step.get('argument')}" for step in steps]
    return str(sum(not any(free in text for free in _FREE_STEPS) for text in texts)) if steps else ""


def _consistency(
    records: Sequence[Record], right: np.ndarray, balanced: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The mean over entailed questions of each balanced question that was answered rightly, and notes."""
    place = {str(record.question_id): number for number, record in enumerate(records)}
    entailed = [[str(other) for other in extra(record, "entailed", list)] for record in records]
    absent = {other for others, counts in zip(entailed, balanced, strict=True) if counts for other in others} - {*place}
    if absent:
        note = (
            f"no consistency: {len(absent)} entailed questions are not among those asked, for example "
            f"{min(absent)!r}; answer all questions, not only the balanced ones"
        )
        return {}, [note]
    values = np.full(len(records), np.nan)
    for number, record in enumerate(records):
        others = [place[other] for other in entailed[number] if other != str(record.question_id)]
        if balanced[number] and right[number] and others:
            values[number] = right[others].mean()
    return ({} if np.isnan(values).all() else {"consistency": values}), []


def _belonging(
    choices: Mapping[str, Any], records: Sequence[Record], answers: Sequence[str], balanced: np.ndarray
) -> dict[str, np.ndarray]:
    """Whether each answer is among the valid, and among the plausible ones."""
    values = {name: np.full(len(records), np.nan) for name in ("valid", "plausible")}
    for number, (record, answer) in enumerate(zip(records, answers, strict=True)):
        if not balanced[number]:
            continue
        lists = choices.get(str(record.question_id))
        if not isinstance(lists, dict) or not all(isinstance(lists.get(name), list) for name in values):
            raise ValueError(
                f"the choices file has no 'valid' and 'plausible' lists for question_id {record.question_id!r}; "
                "give the choices of the same split"
            )
        common = "Common" in _type(record, "detailed")
        for name, belongs in values.items():
            belongs[number] = answer in (_COMMON if common else lists[name])
    return {"validity": values["valid"], "plausibility": values["plausible"]}


def _distribution(records: Sequence[Record], answers: Sequence[str], balanced: np.ndarray) -> Statistic:
    groups = [_global_group(record) for record in records]
    places = [i for i, group in enumerate(groups) if balanced[i] and group is not None]
    numbers: dict[tuple[Any, str], int] = {}  # of each gold answer within its group
    gold = np.array([numbers.setdefault((groups[i], records[i].answer), len(numbers)) for i in places], np.int64)
    predicted = np.array([numbers.get((groups[i], answers[i]), -1) for i in places], np.int64)
    names = {name: number for number, name in enumerate(dict.fromkeys(group for group, _ in numbers))}
    group_of = np.array([names[group] for group, _ in numbers], np.int64)
    compute = _chi_square(np.array(places, np.int64), gold, predicted, group_of)
    return Statistic(("distribution (lower is better)",), len(places), compute)


def _global_group(record: Record) -> str | None:
    group = extra(record, "groups", dict).get("global")
    if group is not None and not isinstance(group, str):
        raise ValueError(f"question_id {record.question_id!r}: its global group is {group!r}, must be text or null")
    return group


def _chi_square(
    places: np.ndarray, gold: np.ndarray, predicted: np.ndarray, group_of: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    known = predicted >= 0

    def compute(weights: np.ndarray) -> np.ndarray:
        weights = weights[places]
        expected = np.bincount(gold, weights, minlength=len(group_of))
        observed = np.bincount(predicted[known], weights[known], minlength=len(group_of))
        there = expected > 0
        terms = np.zeros(len(group_of))
        terms[there] = (observed[there] - expected[there]) ** 2 / expected[there]
        totals = np.bincount(group_of, expected)
        total = totals.sum()
        return np.array([(np.bincount(group_of, terms) * totals).sum() / total / 100 if total else np.nan])

    return compute
