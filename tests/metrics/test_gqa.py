from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.gqa import judge_gqa
from coattn.metrics.judgement import Submission
from coattn.metrics.score import score
from coattn.metrics.scores import Scores


def question(answer: str, **extra: Any) -> dict[str, Any]:
    """A question as GQA's files have it."""
    defaults = {
        "question": "Is it red?",
        "imageId": "1",
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
        "groups": {"global": None, "local": "x"},
        "entailed": [],
        "semantic": [{"operation": "select", "argument": "cat (1)"}, {"operation": "verify color", "argument": "red"}],
    }
    return {"answer": answer, **defaults, **extra}


def records(questions: dict[str, dict[str, Any]]) -> list[Record]:
    keys = ("types", "groups", "entailed", "isBalanced", "semantic")
    return [
        Record(key, q["imageId"], q["question"], (q["answer"],), extra={name: q[name] for name in keys})
        for key, q in questions.items()
    ]


def value(scores: Scores, name: str, title: str = "other numbers") -> float:
    return scores.numbers[title][name].value


def test_accuracy_counts_balanced_questions_alone() -> None:
    questions = {
        "1": question("yes"),
        "2": question("no", types={"structural": "query", "semantic": "rel", "detailed": "relS"}),
        "3": question("red", isBalanced=False),
        "4": question("left", question="Which side of the picture?"),
    }
    scores = score({"1": "yes", "2": "no", "3": "blue", "4": "right"}, records(questions), "gqa")
    assert scores.overall == 66.67
    assert scores.by_question == {"1": 100, "2": 100, "4": 0}
    assert {name: n.value for name, n in scores.numbers["binary or open"].items()} == {"binary": 50, "open": 100}
    assert {name: n.value for name, n in scores.numbers["semantic type"].items()} == {"attr": 50, "rel": 100}
    assert {name: n.count for name, n in scores.numbers["words"].items()} == {"3": 2, "5": 1}
    with pytest.raises(ValueError, match="none of the 1 questions is balanced"):
        score({"3": "x"}, records({"3": questions["3"]}), "gqa")


def test_letters_decide_but_our_normal_form_is_understood() -> None:
    questions = {"1": question("t-shirt"), "2": question("yes"), "3": question("the Alps")}
    answers = {"1": "t shirt", "2": "Yes", "3": "the alps"}
    # "Yes" is not the normal form of "yes"; "the alps" is not that of "the Alps" ("alps").
    assert score(answers, records(questions), "gqa").by_question == {"1": 100, "2": 0, "3": 0}


def test_steps_that_only_ask_do_not_count() -> None:
    def step(operation: str, argument: str) -> dict[str, str]:
        return {"operation": operation, "argument": argument}

    programs = [
        [step("select", "cat"), step("query", "name")],
        [step("select", "cat"), step("exist", "?")],
        [step("select", "cat"), step("choose name", "a|b")],
        [step("select", "cat"), step("filter color", "red"), step("query", "color")],
    ]
    questions = {str(i): question("yes", semantic=program) for i, program in enumerate(programs)}
    scores = score(dict.fromkeys(questions, "yes"), records(questions), "gqa")
    assert {name: n.count for name, n in scores.numbers["reasoning steps"].items()} == {"1": 3, "3": 1}


def test_consistency_by_hand() -> None:
    questions = {
        "1": question("yes", entailed=["1", "2", "3"]),  # right; 2 is right, 3 wrong: 1/2
        "2": question("no", isBalanced=False, entailed=["1"]),  # not balanced: adds nothing
        "3": question("red", isBalanced=False),
        "4": question("a", entailed=["1"]),  # wrong: adds nothing
        "5": question("b", entailed=["5"]),  # entails itself alone: adds nothing
        "6": question("c", entailed=["1"]),  # right, 1 is right: 1
    }
    answers = {"1": "yes", "2": "no", "3": "blue", "4": "x", "5": "b", "6": "c"}
    scores = score(answers, records(questions), "gqa")
    assert value(scores, "consistency") == 75
    assert scores.numbers["other numbers"]["consistency"].count == 2
    del questions["3"], answers["3"]
    scores = score(answers, records(questions), "gqa")
    assert "consistency" not in scores.numbers.get("other numbers", {})
    assert "no consistency: 1 entailed questions are not among those asked, for example '3'" in scores.notes[0]


def test_validity_and_plausibility() -> None:
    questions = {
        "1": question("red"),
        "2": question("blue"),
        "3": question("color", types={"structural": "query", "semantic": "attr", "detailed": "twoCommon"}),
        "4": question("x", isBalanced=False),
    }
    choices = {
        "1": {"valid": ["red", "blue"], "plausible": ["red"]},
        "2": {"valid": ["red"], "plausible": []},
        "3": {"valid": [], "plausible": []},
    }
    submission = Submission(records(questions), ["blue", "blue", "shape", "x"], choices=choices)
    means = {name: np.nanmean(values) for name, values in judge_gqa(submission).means.items()}
    assert means == {"validity": pytest.approx(2 / 3), "plausibility": pytest.approx(1 / 3)}
    choices["2"]["valid"] = 3
    with pytest.raises(ValueError, match=r"choices file has no 'valid' and 'plausible' lists for question_id '2'"):
        judge_gqa(submission)
    del choices["2"]
    with pytest.raises(ValueError, match=r"choices file has no 'valid'.*question_id '2'"):
        judge_gqa(submission)


def test_distribution_is_chi_square_by_group() -> None:
    chance = random.Random(0)
    questions = {
        str(i): question(chance.choice("abcd"), groups={"global": chance.choice(["x", "y", None]), "local": None})
        for i in range(500)
    }
    answers = {key: q["answer"] if chance.random() < 0.4 else chance.choice("abcdez") for key, q in questions.items()}
    total, weights = 0.0, 0
    for group in ("x", "y"):
        keys = [key for key, q in questions.items() if q["groups"]["global"] == group]
        gold, predicted = Counter(questions[key]["answer"] for key in keys), Counter(answers[key] for key in keys)
        statistic = sum((predicted[a] - gold[a]) ** 2 / gold[a] for a in gold)  # "e" and "z" are gold nowhere
        total, weights = total + statistic * len(keys), weights + len(keys)
    scores = score(answers, records(questions), "gqa")
    assert value(scores, "distribution (lower is better)") == pytest.approx(total / weights / 100, abs=0.005)
    assert scores.numbers["other numbers"]["distribution (lower is better)"].count == weights
    perfect = score({key: q["answer"] for key, q in questions.items()}, records(questions), "gqa")
    assert value(perfect, "distribution (lower is better)") == 0


def test_a_question_counted_twice_is_a_question_and_its_copy() -> None:
    chance = random.Random(1)
    questions = {str(i): question(chance.choice("ab"), groups={"global": chance.choice("xy")}) for i in range(40)}
    answers = [chance.choice("abc") for _ in questions]
    weights = np.array([chance.randrange(4) for _ in questions])
    rows = records(questions)
    (statistic,) = judge_gqa(Submission(rows, answers)).statistics
    repeated = [i for i, weight in enumerate(weights) for _ in range(weight)]
    (copied,) = judge_gqa(Submission([rows[i] for i in repeated], [answers[i] for i in repeated])).statistics
    assert statistic.compute(weights) == pytest.approx(copied.compute(np.ones(len(repeated), np.int64)))


def test_without_types_the_parts_are_left_out_and_it_is_said() -> None:
    scores = score({1: "yes"}, [Record(1, 1, "is it?", ("yes",))], "gqa")
    assert scores.overall == 100
    assert "no question has GQA's 'types'" in scores.notes[0]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("types", "query", "'types' is 'query', must be an object"),
        ("groups", ["x"], r"'groups' is \['x'\], must be an object"),
        ("groups", {"global": ["x"]}, r"its global group is \['x'\], must be text or null"),
        ("entailed", "2", "'entailed' is '2', must be a list"),
        ("semantic", ["select"], "'semantic' is .*must be a list of objects"),
    ],
)
def test_a_wrong_kind_is_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"question_id '7': {message}"):
        score({"7": "yes"}, records({"7": question("yes", **{key: value})}), "gqa")


def test_real_questions(shared_data: Path) -> None:
    folder = shared_data / "official_format_fixtures" / "gqa"
    questions: dict[str, dict[str, Any]] = {}
    for file in [folder / "questions.json", *sorted((folder / "question_dir").glob("*.json"))]:
        questions |= json.loads(file.read_text(encoding="utf-8"))
    answers = {key: q["answer"] for key, q in questions.items()}
    scores = score(Results(answers), records(questions), "gqa", num_samples=20)
    assert scores.overall == 100
    assert sum(number.count for number in scores.numbers["structural type"].values()) == len(scores.by_question)
    assert value(scores, "distribution (lower is better)") == 0
    first = next(iter(questions))
    scores = score(answers | {first: "zebra"}, records(questions), "gqa")
    count = len(scores.by_question)
    assert scores.overall == round(100 * (count - 1) / count, 2)
