from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from coattn.metrics.vqa import exact_match, vqa_accuracy

GOLDEN = Path(__file__).parents[1] / "golden" / "vqa_eval"


def read(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def ten(*answers: str) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(answers, start=1)]


@pytest.mark.parametrize("prefix", ["", "malformed_"])
def test_every_golden_question_scores_as_the_official_code_scores_it(prefix: str) -> None:
    expected = read(f"{prefix}expected")["accuracy_by_question"]
    results = {result["question_id"]: result["answer"] for result in read(f"{prefix}results")}
    annotations = read(f"{prefix}annotations")["annotations"]
    before = copy.deepcopy(annotations)
    scored = {
        str(annotation["question_id"]): round(
            100 * vqa_accuracy(results[annotation["question_id"]], annotation["answers"]), 2
        )
        for annotation in annotations
    }
    assert scored == expected
    assert annotations == before  # unlike the official code, which changes them in place


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_ten_answers(matches: int, accuracy: float) -> None:
    answers = ["cat"] * matches + [f"dog {i}" for i in range(10 - matches)]
    assert vqa_accuracy("cat", answers) == pytest.approx(accuracy)
    assert vqa_accuracy("cat", ten(*answers)) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("prediction", "answers", "accuracy"),
    [
        ("yes", ["yes"] * 10, 1),
        ("Yes", ["yes"] * 10, 0),  # all agree: nothing is normalized
        ("yes", ["Yes"] * 10, 0),
        ("yes.", ["yes"] * 10, 0),
        (" yes\n", ["yes\t"] * 10, 1),  # but outer white space goes, and newlines and tabs are spaces
        ("hot\ndog", ["hot dog"] * 10, 1),
        ("hot\rdog", ["hot dog"] * 10, 0),
        ("0", ["none"] * 10, 0),
        ("0", ["none"] * 9 + ["no"], 1),
        ("none", ["0"] * 9 + ["no"], 1),
        ("Yes", ["yes"] * 9 + ["Yes"], 1),  # case alone makes a difference, and then all are normalized
        ("YES.", ["yes"] * 9 + ["no"], 1),
        ("yes", ["yes"] * 5 + ["yes "] * 5, 1),  # the same after cleaning
        ("the", ["a"] * 9 + ["b"], 1),  # both are nothing once normalized
        ("", ["a"] * 9 + ["b"], 1),
        ("", [""] * 10, 1),
        ("cat", ["cat"], 0),
        ("cat", ["cat", "cat"], 1 / 3),
        ("cat", ["cat", "cat", "cat"], 2 / 3),
        ("cat", ["cat", "dog"], 1 / 6),
        ("cat", ["cat"] * 4 + ["dog"] * 8, 1),
    ],
)
def test_quirks(prediction: str, answers: list[str], accuracy: float) -> None:
    assert vqa_accuracy(prediction, answers) == pytest.approx(accuracy)
    assert vqa_accuracy(prediction, ten(*answers)) == pytest.approx(accuracy)


def test_equal_entries_drop_out_together() -> None:
    same = [{"answer": "cat", "answer_id": 1}] * 10
    assert vqa_accuracy("cat", same) == 0
    # Two ids of five entries each: leaving out one entry leaves the five of the other id.
    assert vqa_accuracy("cat", [{"answer": "cat", "answer_id": i % 2} for i in range(10)]) == 1
    # Entries are equal only once normalized: "cat" and "Cat" under one id drop out together, "dog" sees all nine.
    entries = [{"answer": "cat", "answer_id": 1}] * 5 + [{"answer": "Cat", "answer_id": 1}] * 4
    assert vqa_accuracy("cat", [*entries, {"answer": "dog", "answer_id": 1}]) == pytest.approx(0.1)
    # The confidence tells entries apart as well.
    two = [{"answer": "cat", "answer_id": 1, "answer_confidence": c} for c in ("yes", "no") for _ in range(5)]
    assert vqa_accuracy("cat", two) == 1


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        vqa_accuracy("cat", [])


@pytest.mark.parametrize(
    ("prediction", "answer", "accuracy"),
    [
        ("yes", "Yes.", 1),
        ("Garbage  bin", "garbage_bin", 1),
        ("two", "2", 0),
        ("HER2+", "HER2-", 0),
        ("-1", "1", 0),
        ("<5 mm", ">5 mm", 0),
        ("C++", "C", 0),
        ("B+", "B-", 0),
        ("none", "0", 0),
        ("the left", "left", 0),
        ("−1", "-1", 1),
        ("是。", "是", 1),
        ("T–shirt", "t-shirt", 1),
        ("left,right", "left, right", 1),
        ("1,000", "1, 000", 0),
        ("yes", "no", 0),
        ("a", "A", 1),
        ("a", "the", 0),
        ("", "a", 0),
        ("?", "!", 0),
    ],
)
def test_exact_match_ignores_case_spaces_and_final_stops_alone(prediction: str, answer: str, accuracy: float) -> None:
    assert exact_match(prediction, answer) == accuracy
    assert exact_match(answer, prediction) == accuracy
