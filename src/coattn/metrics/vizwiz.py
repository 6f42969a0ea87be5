"""VizWiz: accuracy of answers given to blind people, and whether a question can be answered at all.

Written from the behavior of the official evaluation (https://vizwiz.org/tasks-and-datasets/vqa, Gurari et al. 2018,
arXiv 1802.08218). It differs from VQA's: the prediction is always normalized and the human answers never,
because the file has them in normal form, and only one of the ten answers is left out, because they have no ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coattn.datasets.records import Record
from coattn.metrics.judgement import Judgement, Statistic, Submission
from coattn.text.answers import normalize_answer


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Each human answer left out in turn, min(1, matches among the others / 3), averaged; in [0, 1].

    The prediction is compared in its official normal form, the human answers as they are.
    """
    total, matches = len(answers), answers.count(normalize_answer(prediction))
    return (matches * min(3, matches - 1) + (total - matches) * min(3, matches)) / (3 * total)


def average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The precision at each score, from the highest down, averaged with the gains in recall as weights.

    AP = sum over thresholds n of (R_n - R_{n-1}) P_n, without interpolation; equal scores share a threshold.

    Args:
        scores: (N,) higher where the question is rather positive.
        positive: (N,) bool.
        weights: (N,) how often each counts; once by default.

    Returns:
        The average in [0, 1]; NaN without a positive.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    seen = np.cumsum(weights[order])[ends]
    hits = np.cumsum((weights * positive)[order])[ends]
    if not hits[-1] > 0:
        return float("nan")
    precision = np.divide(hits, seen, out=np.zeros(len(ends)), where=seen > 0)
    return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])


def judge_vizwiz(submission: Submission) -> Judgement:
    """VizWiz accuracy, and average precision and F1 of "answerable", if the results have it (VizWiz).

    Average precision and F1 are those of finding the questions that can *not* be answered: of 1 - "answerable", F1 at
    more than 0.5. The truth is the record's extra "answerable", 0 or 1, else whether its answer type is "unanswerable".
    Results without any answer are those of the answerability task: their accuracy is that of "answerable".

    Raises:
        ValueError: a record's "answerable" is neither 0 nor 1.
    """
    pairs = zip(submission.answers, submission.records, strict=True)
    worth = np.array([vizwiz_accuracy(answer, record.answers) for answer, record in pairs])
    if submission.answerable is None:
        note = 'no average precision of answerability: the results have no "answerable"'
        return Judgement(worth, notes=[note])
    notes = []
    scores = 1 - submission.answerable
    positive = np.array([not _answerable(record) for record in submission.records])
    if not any(submission.answers):
        worth = ((scores > 0.5) == positive).astype(np.float64)
        notes.append('the results have no answers: the accuracy is that of "answerable" at 0.5')

    def compute(weights: np.ndarray) -> np.ndarray:
        found = scores > 0.5
        hits, total = (weights * (found & positive)).sum(), (weights * found).sum() + (weights * positive).sum()
        f1 = 2 * hits / total if total else np.nan
        return 100 * np.array([average_precision(scores, positive, weights), f1])

    names = ("unanswerable: average precision", "unanswerable: F1")
    return Judgement(worth, statistics=[Statistic(names, len(worth), compute)], notes=notes)


def _answerable(record: Record) -> bool:
    value = record.extra.get("answerable")
    if value is None:
        return record.answer_type != "unanswerable"
    if value not in (0, 1):
        raise ValueError(f"question_id {record.question_id!r}: 'answerable' is {value!r}, must be 0 or 1")
    return bool(value)
