"""Calibration of confidences, and selective prediction: abstaining where the confidence is low.

A question has a confidence in [0, 1], and its answer is worth `worth` in [0, 1] (its accuracy). With a threshold t a
model answers the questions with confidence >= t and abstains on the others (Whitehead et al. 2022, arXiv 2204.13631):

    coverage(t) = share of questions answered
    risk(t)     = mean of 1 - worth over the questions answered
    C@R         = the largest coverage(t) with risk(t) <= R
    Phi_c       = mean over all questions of:  worth  if answered and worth > 0
                                               -c     if answered and worth = 0
                                               0      if not answered
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from coattn.metrics.judgement import Statistic

RISKS = (0.01, 0.05, 0.1, 0.2)
COSTS = (1, 10, 100)
NUM_BINS = 15

_ROUNDING = 1e-9  # a risk of 10 % reached by adding tenths is 10 %


class RiskCoverage(NamedTuple):
    """Risk against coverage, at each distinct confidence as threshold, from the highest down.

    Attributes:
        counts: (T,) the number of questions with that confidence.
        errors: (T,) the sum of their errors, 1 - worth.
        coverage: (T,) the share of questions answered.
        risk: (T,) the mean error of those; 0 where nothing is answered.
    """

    counts: np.ndarray
    errors: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray

    def coverage_at(self, risks: Sequence[float]) -> list[float]:
        """C@R for each R of `risks`; 0 where no threshold keeps it."""
        return [float(self.coverage[self.risk <= allowed + _ROUNDING].max(initial=0.0)) for allowed in risks]

    def area(self) -> float:
        """The area under risk against coverage, by trapezoids between coverages 1/N, 2/N, ..., 1 as the authors do.

        Deliberate difference: questions of equal confidence each get the mean error of all of them, so that the order
        in the file does not matter.
        """
        total = int(self.counts.sum())
        if total == 0:
            return float("nan")
        means = np.divide(self.errors, self.counts, out=np.zeros(len(self.counts)), where=self.counts > 0)
        risk = np.repeat(means, self.counts).cumsum()
        risk /= np.arange(1, total + 1)
        return float((risk.sum() - (risk[0] + risk[-1]) / 2) / total)


def risk_coverage(confidence: np.ndarray, worth: np.ndarray) -> Callable[[np.ndarray], RiskCoverage]:
    """The curve of these questions, as a function of how often each counts, (N,) integers.

    Args:
        confidence: (N,) in [0, 1].
        worth: (N,) in [0, 1].
    """
    order = np.argsort(-confidence, kind="stable")
    starts = np.append(True, np.diff(confidence[order]) != 0).nonzero()[0]
    error = 1 - worth[order]
    distinct = len(starts) == len(order)

    def curve(weights: np.ndarray) -> RiskCoverage:
        counts = weights[order]
        errors = counts * error
        if not distinct:
            counts, errors = np.add.reduceat(counts, starts), np.add.reduceat(errors, starts)
        covered = counts.cumsum()
        risk = np.divide(errors.cumsum(), covered, out=np.zeros(len(counts)), where=covered > 0)
        return RiskCoverage(counts, errors, covered / covered[-1], risk)

    return curve


def effective_reliability(confidence: np.ndarray, worth: np.ndarray, cost: float, threshold: float) -> np.ndarray:
    """Phi_c of each question, (N,): `worth`, -cost where that is 0, and 0 where confidence < threshold."""
    return np.where(confidence >= threshold, np.where(worth > 0, worth, -float(cost)), 0.0)


def best_threshold(confidence: np.ndarray, worth: np.ndarray, cost: float) -> float:
    """The threshold at which the mean of Phi_c is highest on these questions; the lowest of several.

    It is infinite, which means to abstain always, if answering never pays; the authors' code always answers at least
    the question with the highest confidence.
    """
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    totals = effective_reliability(falling, worth[order], cost, 0.0).cumsum()
    ends = np.append(np.diff(falling) != 0, True).nonzero()[0]
    best = totals[ends].max()
    return float(falling[ends[totals[ends] == best][-1]]) if best >= 0 else float("inf")


def bins_of(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each confidence: bin i holds (i / num_bins, (i + 1) / num_bins], the first 0 as well."""
    return np.maximum(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0)


def calibration_error(confidence: np.ndarray, worth: np.ndarray, *, num_bins: int = NUM_BINS) -> float:
    """The gap between confidence and accuracy: mean over equal-width bins of |accuracy - confidence|, by their share.

    Equation 3 of Guo et al. 2017 (arXiv 1706.04599), with soft accuracies allowed: an answer that is worth 0.6 should
    have confidence 0.6.

    Args:
        confidence: (N,) in [0, 1].
        worth: (N,) in [0, 1].
        num_bins: number of bins, see `bins_of`.

    Returns:
        The error in [0, 1]; 0 is perfect.
    """
    return _gap(bins_of(confidence, num_bins), worth - confidence) / len(worth)


def confidence_statistic(confidence: np.ndarray, worth: np.ndarray) -> Statistic:
    """Calibration error, area under risk-coverage, and coverage at RISKS, all in percent."""
    curve = risk_coverage(confidence, worth)
    bins, gaps = bins_of(confidence, NUM_BINS), worth - confidence

    def compute(weights: np.ndarray) -> np.ndarray:
        selective = curve(weights)
        error = _gap(bins, weights * gaps) / weights.sum()
        return 100 * np.array([error, selective.area(), *selective.coverage_at(RISKS)])

    names = ["expected calibration error", "area under risk-coverage"]
    names += [f"coverage at {100 * risk:g} % risk" for risk in RISKS]
    return Statistic(tuple(names), len(worth), compute)


def _gap(bins: np.ndarray, gaps: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, gaps)).sum())
