from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.confidence import (
    COSTS,
    RISKS,
    best_threshold,
    calibration_error,
    confidence_statistic,
    effective_reliability,
    risk_coverage,
)
from coattn.metrics.score import score

WORTH = (0.0, 0.3, 0.6, 0.9, 1.0)
ROWS = st.lists(
    st.tuples(st.integers(0, 20).map(lambda number: number / 20), st.sampled_from(WORTH)), min_size=1, max_size=40
)


def curve(rows: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Threshold, coverage and risk by definition, one threshold after the other."""
    points = []
    for threshold in sorted({confidence for confidence, _ in rows}, reverse=True):
        answered = [worth for confidence, worth in rows if confidence >= threshold]
        points.append((threshold, len(answered) / len(rows), sum(1 - worth for worth in answered) / len(answered)))
    return points


def arrays(rows: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    confidence, worth = zip(*rows, strict=True)
    return np.array(confidence), np.array(worth)


def once(rows: list[tuple[float, float]]) -> np.ndarray:
    return np.ones(len(rows), np.int64)


@given(ROWS)
def test_curve_and_coverage_by_definition(rows: list[tuple[float, float]]) -> None:
    got = risk_coverage(*arrays(rows))(once(rows))
    points = curve(rows)
    assert got.coverage == pytest.approx([coverage for _, coverage, _ in points])
    assert got.risk == pytest.approx([risk for _, _, risk in points])
    for allowed, covered in zip(RISKS, got.coverage_at(RISKS), strict=True):
        expected = max((coverage for _, coverage, risk in points if risk <= allowed + 1e-9), default=0)
        assert covered == pytest.approx(expected)


@given(ROWS)
def test_area_of_distinct_confidences_is_that_of_trapezoids(rows: list[tuple[float, float]]) -> None:
    rows = [(number / 100, worth) for number, (_, worth) in enumerate(rows)]
    points = curve(rows)
    area = sum((b[1] - a[1]) * (a[2] + b[2]) / 2 for a, b in itertools.pairwise(points))
    assert risk_coverage(*arrays(rows))(once(rows)).area() == pytest.approx(area)


def test_area_equals_scikit_learn() -> None:
    auc = pytest.importorskip("sklearn.metrics").auc
    chance = np.random.default_rng(0)
    confidence, worth = chance.permutation(500) / 500, chance.choice(WORTH, 500)
    errors = 1 - worth[np.argsort(-confidence)]
    counts = np.arange(1, 501)
    expected = auc(counts / 500, errors.cumsum() / counts)
    assert risk_coverage(confidence, worth)(np.ones(500, np.int64)).area() == pytest.approx(expected)


@given(st.lists(st.sampled_from(WORTH), min_size=2, max_size=6))
def test_area_of_equal_confidences_is_the_mean_over_all_orders(worth: list[float]) -> None:
    areas = []
    for order in itertools.permutations(worth):
        risks = [sum(1 - value for value in order[:count]) / count for count in range(1, len(order) + 1)]
        areas.append(sum((a + b) / 2 for a, b in itertools.pairwise(risks)) / len(order))
    got = risk_coverage(np.full(len(worth), 0.5), np.array(worth))(np.ones(len(worth), np.int64)).area()
    assert got == pytest.approx(sum(areas) / len(areas))


@given(ROWS, st.sampled_from(COSTS))
def test_effective_reliability_and_its_best_threshold_by_definition(rows: list[tuple[float, float]], cost: int) -> None:
    def phi(threshold: float) -> float:
        gains = [(worth if worth > 0 else -cost) if confidence >= threshold else 0 for confidence, worth in rows]
        return sum(gains) / len(rows)

    best = best_threshold(*arrays(rows), cost)
    candidates = [float("inf"), *(confidence for confidence, _ in rows)]
    assert phi(best) == pytest.approx(max(map(phi, candidates)))
    assert effective_reliability(*arrays(rows), cost, best).mean() == pytest.approx(phi(best))


def test_published_meaning_of_effective_reliability() -> None:
    """Whitehead et al. 2022, section 3: with cost 1 a wrong answer undoes a right one; abstaining is worth 0."""
    confidence, worth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([1.0, 0.0, 0.6, 0.0])
    assert effective_reliability(confidence, worth, 1, 0.0).tolist() == [1, -1, 0.6, -1]
    assert effective_reliability(confidence, worth, 10, 0.85).tolist() == [1, 0, 0, 0]
    assert best_threshold(confidence, worth, 1) == 0.9
    assert best_threshold(confidence[1:], worth[1:], 100) == float("inf")
    assert best_threshold(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]), 1) == 0.7  # as many as possible


@given(ROWS, st.data())
def test_a_question_counted_twice_is_a_question_and_its_copy(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    copies = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    if not copies:
        return
    got = confidence_statistic(*arrays(rows)).compute(weights)
    assert got == pytest.approx(confidence_statistic(*arrays(copies)).compute(once(copies)))


@given(ROWS)
def test_calibration_error_by_definition(rows: list[tuple[float, float]]) -> None:
    confidence, worth = arrays(rows)
    total, edges = 0.0, [number / 10 for number in range(11)]
    for low, high in itertools.pairwise(edges):
        inside = [(c, w) for c, w in rows if (c > low or c == low == 0) and c <= high]
        if inside:
            total += abs(sum(w - c for c, w in inside)) / len(rows)
    assert calibration_error(confidence, worth, num_bins=10) == pytest.approx(total)


def test_scores_of_results_with_confidences() -> None:
    records = [Record(i, i // 2, "q", ("cat",)) for i in range(4)]
    results = Results({0: "cat", 1: "dog", 2: "cat", 3: "dog"}, {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.1})
    scores = score(results, records, "exact_match")
    numbers = {name: number.value for name, number in scores.numbers["other numbers"].items()}
    assert numbers["expected calibration error"] == round(100 * (0.1 + 0.8 + 0.3 + 0.1) / 4, 2)
    assert numbers["coverage at 20 % risk"] == 25
    assert numbers["effective reliability at cost 1"] == 25
    assert scores.thresholds == {1: 0.7, 10: 0.9, 100: 0.9}
    assert scores.tuned_here
    given_ = score(results, records, "exact_match", thresholds={10: 0.75})
    assert given_.numbers["other numbers"]["effective reliability at cost 10"].value == -225
    assert not given_.tuned_here
    assert score(results.answers, records, "exact_match").thresholds == {}
