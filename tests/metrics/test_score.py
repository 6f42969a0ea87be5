from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coattn.datasets.doubt import Doubt
from coattn.datasets.records import Record
from coattn.datasets.results import Results, read_results
from coattn.datasets.vqa_json import METRICS as NAMED_BY_DATA
from coattn.datasets.vqa_json import read_vqa
from coattn.metrics.score import METRICS, column_groups, score, seen_groups

GOLDEN = Path(__file__).parents[1] / "golden" / "vqa_eval"


def golden(prefix: str) -> tuple[dict[int | str, str], list[Record]]:
    data = read_vqa(GOLDEN / f"{prefix}questions.json", GOLDEN / f"{prefix}annotations.json")
    assert data.metric == "vqa_accuracy"
    return dict(read_results(GOLDEN / f"{prefix}results.json").answers), data.records


def expected(prefix: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{prefix}expected.json").read_text(encoding="utf-8"))


def record(question_id: int | str, *answers: str, answer_type: str = "", question_type: str = "") -> Record:
    return Record(question_id, 1, "what?", answers, answer_type=answer_type, question_type=question_type)


def test_every_metric_that_a_data_set_may_name_is_there() -> None:
    assert set(NAMED_BY_DATA) <= set(METRICS)


@pytest.mark.parametrize("prefix", ["", "malformed_"])
def test_golden_files_score_as_the_official_code_scores_them(prefix: str) -> None:
    scores = score(*golden(prefix), "vqa_accuracy")
    assert scores.by_question == expected(prefix)["accuracy_by_question"]
    assert scores.overall == expected(prefix)["overall"]
    if not prefix:
        assert scores.by_answer_type == expected(prefix)["by_answer_type"]


def test_type_means_are_taken_before_rounding() -> None:
    records = [
        record(1, *["cat"] * 3, answer_type="x", question_type="what"),  # 2/3
        record(2, *["cat"] * 3, answer_type="x", question_type="how"),  # 2/3
        record(3, "cat", "dog", question_type="what"),  # 1/6
        record(4, "cat", "cow", answer_type="x"),  # 0
    ]
    scores = score({1: "cat", 2: "cat", 3: "cat", 4: "x"}, records, "vqa_accuracy")
    assert scores.by_question == {"1": 66.67, "2": 66.67, "3": 16.67, "4": 0}
    assert scores.by_answer_type == {"x": 44.44}  # 4/9; the mean of the rounded is 44.45
    assert scores.by_question_type == {"what": 41.67, "how": 66.67}  # (2/3 + 1/6) / 2
    assert scores.overall == 37.5
    assert scores.counts == {"answer type": {"x": 3}, "question type": {"what": 2, "how": 1}}


def test_scores_by_column_and_by_what_training_has_seen() -> None:
    records = [
        Record(1, "a", "What organ is it?", ("liver",), extra={"organ": "liver", "slice": 3}),
        Record(2, "a", "Is it healthy?", ("yes",), extra={"organ": "liver"}),
        Record(3, "b", "what organ is it", ("lung",), extra={"organ": "lung"}),
    ]
    training = [Record(7, "a", "What organ is it?", ("liver",))]
    groups = {"organ": column_groups(records, "organ"), "slice": column_groups(records, "slice")}
    groups |= seen_groups(training, records)
    numbers = score({1: "liver", 2: "no", 3: "lung"}, records, "exact_match", groups=groups).numbers
    values = {title: {name: number.value for name, number in numbers[title].items()} for title in groups}
    assert values == {
        "organ": {"liver": 50, "lung": 100},
        "slice": {"3": 100},
        "image in training": {"seen": 50, "unseen": 100},
        "question in training": {"seen": 100, "unseen": 0},
        "question on its image in training": {"identical": 100, "unseen": 50},
    }
    assert column_groups(records, "image_id") == ["a", "a", "b"]
    with pytest.raises(ValueError, match="no question has a column 'organs'; did you mean 'organ'"):
        column_groups(records, "organs")


def test_many_numbers_of_a_column_are_divided_into_five_ranges() -> None:
    ages = [*range(40), None, *range(5)]
    records = [Record(n, n, "?", ("x",), extra={"age": age, "id": f"p{n}"}) for n, age in enumerate(ages)]
    groups = column_groups(records, "age")
    names = ["0 to 4", "5 to 12", "13 to 21", "22 to 30", "31 to 39"]
    assert list(dict.fromkeys(groups)) == [*names, ""]
    assert [groups.count(name) for name in names] == [10, 8, 9, 9, 9]
    assert groups[40:42] == ["", "0 to 4"]
    assert column_groups(records[:20], "age") == [str(age) for age in range(20)]
    long = [Record(n, n, "?", extra={"time": 1_700_000_000_000 + n}) for n in range(25)]
    assert len(set(column_groups(long, "time"))) == 5
    scores = score(
        dict.fromkeys(range(len(ages)), "x"), records, "exact_match", groups={"id": column_groups(records, "id")}
    )
    lines = scores.table().splitlines()
    assert lines[-1].split() == ["...", "26", "in", "26", "more"]
    assert len(scores.numbers["id"]) == 46


def test_withheld_and_doubted_answers_are_scored_apart() -> None:
    records = [Record(number, "a", "what?", ("x",)) for number in range(4)]
    answers: dict[int | str, str] = dict(enumerate("xxyy"))
    doubts = {"1": Doubt(False, ("Unlike.",)), 3: Doubt(True, ("Unsure.",))}
    numbers = score(Results(answers, doubts=doubts), records, "exact_match").numbers
    values = {title: {name: (n.value, n.count) for name, n in block.items()} for title, block in numbers.items()}
    assert values["answered or withheld"] == {"answered": (66.67, 3), "withheld": (0, 1)}
    assert values["doubted or not"] == {"not doubted": (50, 2), "doubted": (50, 2)}
    assert "answered or withheld" not in score(Results(answers), records, "exact_match").numbers


@pytest.mark.parametrize(
    ("metric", "values", "note"),
    [
        ("vqa_accuracy", (0, 33.33, 66.67, 100), "1 of 4 questions have one answer, where at most 0.00 % can be"),
        (
            "soft_accuracy",
            (100, 33.33, 66.67, 100),
            "1 of 4 questions have three answers, where at most 66.67 % can be",
        ),
    ],
)
def test_few_answers_are_said(metric: str, values: tuple[float, ...], note: str) -> None:
    records = [Record(number, number, "q", ("cat",) * number) for number in (1, 2, 3, 4)]
    scores = score(dict.fromkeys((1, 2, 3, 4), "cat"), records, metric)
    assert tuple(scores.by_question.values()) == values
    assert note in scores.table()


def test_several_people_of_a_table_are_compared_as_typed() -> None:
    records = [Record(1, 1, "q", ("Yes",) * 10), Record(2, 2, "q", ("HER2+",) * 6 + ("HER2-",) * 3 + ("?",))]
    assert score({1: "yes", 2: "HER2-"}, records, "soft_accuracy").by_question == {"1": 100, "2": 90}
    assert score({1: "Yes.", 2: "her2+"}, records, "soft_accuracy").by_question == {"1": 100, "2": 100}


def test_exact_match_uses_the_one_answer_of_the_record() -> None:
    records = [
        record(1, "Cat."),
        record(2, "dog", "dog", "cat"),
        Record(3, 1, "q?", ("a",), multiple_choice_answer="b"),
    ]
    scores = score({1: "cat", 2: "Dog", 3: "a"}, records, "exact_match")
    assert scores.by_question == {"1": 100, "2": 100, "3": 0}
    assert scores.overall == 66.67


def test_ids_are_compared_as_text() -> None:
    assert score({"7": "cat", 8: "cat"}, [record(7, "cat"), record("8", "cat")], "exact_match").overall == 100


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({1: "cat"}, r"r\.json: 1 of 2 questions have no result, for example question_id 2"),
        ({1: "cat", 2: "cat", "x": "cat"}, r"r\.json: 1 of 3 results answer no annotated question.*'x'"),
        ({1: "cat", 2: "cat", "2": "dog"}, r"r\.json: question_id 2 is answered twice"),
        ({}, r"2 of 2 questions have no result"),
    ],
)
def test_results_that_do_not_correspond_are_refused(results: dict[int | str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(results, [record(1, "cat"), record(2, "cat")], "exact_match", where="r.json")


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no questions"):
        score({}, [], "exact_match")
    with pytest.raises(ValueError, match="question_id 5 has no human answer"):
        score({5: "cat"}, [record(5)], "exact_match")
    with pytest.raises(ValueError, match="unknown metric 'wup'; did you mean 'wups'"):
        score({5: "cat"}, [record(5, "cat")], "wup")


def test_table_shows_every_type_with_its_count() -> None:
    records = [record(i, "cat", answer_type="other" if i else "number", question_type="what is") for i in range(3)]
    lines = score({0: "x", 1: "cat", 2: "cat"}, records, "exact_match").table().splitlines()
    assert [line.split() for line in lines] == [
        ["all", "questions", "questions", "accuracy"],
        ["exact_match", "3", "66.67"],
        [],
        ["answer", "type", "questions", "accuracy"],
        ["other", "2", "100.00"],
        ["number", "1", "0.00"],
        [],
        ["question", "type", "questions", "accuracy"],
        ["what", "is", "3", "66.67"],
    ]
    assert len({len(line) for line in lines if line}) == 1
    assert "answer type" not in score({1: "cat"}, [record(1, "cat")], "exact_match").table()
