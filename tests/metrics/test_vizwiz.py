from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.score import score
from coattn.metrics.vizwiz import average_precision, vizwiz_accuracy


def official(prediction: str, answers: list[str]) -> float:
    """One answer after the other left out, by its place."""
    accuracies = []
    for place in range(len(answers)):
        others = answers[:place] + answers[place + 1 :]
        accuracies.append(min(1, others.count(prediction) / 3))
    return sum(accuracies) / len(accuracies)


@given(st.lists(st.sampled_from(["cat", "dog", "unanswerable"]), min_size=1, max_size=12))
def test_equals_leaving_out_one_by_one(answers: list[str]) -> None:
    assert vizwiz_accuracy("cat", answers) == pytest.approx(official("cat", answers))


def test_the_prediction_alone_is_normalized() -> None:
    assert vizwiz_accuracy("The Cat.", ["cat"] * 10) == 1
    assert vizwiz_accuracy("cat", ["Cat"] * 10) == 0


def precision_and_recall(scores: list[float], positive: list[bool]) -> float:
    """Average precision as scikit-learn documents it: sum of (R_n - R_n-1) P_n over thresholds."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = [truth for value, truth in zip(scores, positive, strict=True) if value >= threshold]
        precision, recall = sum(found) / len(found), sum(found) / sum(positive)
        total, before = total + (recall - before) * precision, recall
    return total


@given(st.lists(st.tuples(st.sampled_from([0, 0.2, 0.5, 0.7, 1]), st.booleans()), min_size=1, max_size=30))
def test_average_precision_by_definition(rows: list[tuple[float, bool]]) -> None:
    scores, positive = [value for value, _ in rows], [truth for _, truth in rows]
    got = average_precision(np.array(scores), np.array(positive))
    if any(positive):
        assert got == pytest.approx(precision_and_recall(scores, positive))
    else:
        assert np.isnan(got)


def test_average_precision_example_of_scikit_learn() -> None:
    # From its documentation: y_true [0, 0, 1, 1], y_scores [0.1, 0.4, 0.35, 0.8] give 0.83...
    got = average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    assert got == pytest.approx(0.8333, abs=1e-4)


def test_average_precision_equals_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.metrics").average_precision_score
    chance = np.random.default_rng(0)
    scores, positive, weights = chance.random(300).round(2), chance.random(300) < 0.3, chance.integers(4, size=300)
    assert average_precision(scores, positive) == pytest.approx(reference(positive, scores))
    copies = np.repeat(np.arange(300), weights)
    assert average_precision(scores, positive, weights) == pytest.approx(reference(positive[copies], scores[copies]))


def test_answerability_finds_the_questions_that_cannot_be_answered() -> None:
    chance = random.Random(0)
    records = [
        Record(
            i,
            i,
            "q",
            ("yes",) * 10,
            answer_type="other" if i % 3 else "unanswerable",
            extra={"answerable": int(i % 3 > 0)},
        )
        for i in range(60)
    ]
    answerable = {i: round(chance.random() * 0.8 + 0.2 * (i % 3 > 0), 2) for i in range(60)}
    scores = score(Results(dict.fromkeys(range(60), "yes"), {}, answerable), records, "vizwiz")
    positive = [i % 3 == 0 for i in range(60)]
    numbers = {name: number.value for name, number in scores.numbers["other numbers"].items()}
    expected = precision_and_recall([1 - answerable[i] for i in range(60)], positive)
    assert numbers["unanswerable: average precision"] == pytest.approx(100 * expected, abs=0.005)
    found = [1 - answerable[i] > 0.5 for i in range(60)]
    hits = sum(a and b for a, b in zip(found, positive, strict=True))
    assert numbers["unanswerable: F1"] == pytest.approx(200 * hits / (sum(found) + sum(positive)), abs=0.005)
    assert scores.by_answer_type == {"other": 100, "unanswerable": 100}
    said = score(dict.fromkeys(range(60), "yes"), records, "vizwiz")
    assert "no average precision" in said.notes[0]


def test_answerable_is_0_or_1() -> None:
    records = [Record(1, 1, "q", ("yes",), extra={"answerable": "no"})]
    with pytest.raises(ValueError, match="question_id 1: 'answerable' is 'no', must be 0 or 1"):
        score(Results({1: "yes"}, {}, {1: 0.9}), records, "vizwiz")


def test_without_any_to_find_the_number_is_missing_and_not_wrong() -> None:
    records = [Record(1, 1, "q", ("yes",), extra={"answerable": 1})]
    scores = score(Results({1: "yes"}, {}, {1: 0.9}), records, "vizwiz")
    assert scores.to_json()["numbers"]["other numbers"]["unanswerable: average precision"]["value"] is None
    assert [line.split()[-1] for line in scores.table().splitlines() if "unanswerable" in line] == ["-", "-"]


def test_answerability_alone() -> None:
    records = [Record(i, i, "q", ("x",), extra={"answerable": i % 2}) for i in range(20)]
    likely = {i: 0.9 if i % 4 == 1 else 0.2 for i in range(20)}
    scores = score(Results(dict.fromkeys(range(20), ""), answerable=likely), records, "vizwiz")
    assert scores.overall == 75
    assert any("accuracy is that of" in note for note in scores.notes)
