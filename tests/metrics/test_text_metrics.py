"""Metrics of one answer against others: multiple choice, CLEVR, ANLS, medical."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.datasets.records import Record
from coattn.metrics.anls import anls, levenshtein
from coattn.metrics.judgement import Submission, as_annotated
from coattn.metrics.medical import token_f1
from coattn.metrics.score import score
from coattn.metrics.scores import Scores
from coattn.metrics.vqa import judge_a_okvqa, vqa_accuracy


def others(scores: Scores) -> dict[str, float]:
    return {name: number.value for name, number in scores.numbers["other numbers"].items()}


# Spelling


@given(
    st.lists(st.sampled_from(["t-shirt", "T shirt", "t shirt", "Yes", "yes", "a"]), min_size=1, max_size=5), st.data()
)
def test_what_is_written_in_the_annotations_stays(texts: list[str], data: st.DataObject) -> None:
    records = [Record(i, 1, "q", (text,)) for i, text in enumerate(texts)]
    answers = data.draw(st.lists(st.sampled_from(texts), min_size=len(texts), max_size=len(texts)))
    assert as_annotated(Submission(records, answers)) == (answers, [])


def test_a_normal_form_gets_the_most_frequent_spelling() -> None:
    records = [
        Record(i, 1, "q", (text,)) for i, text in enumerate(["t-shirt", "T shirt", "T shirt", "light_blue, red"])
    ]
    answers = ["t shirt", "light blue red", "light blue, red", "T-Shirt"]
    spelled = as_annotated(Submission(records, answers))
    assert spelled.answers == ["T shirt", *["light_blue, red"] * 2, "T-Shirt"]
    assert "3 of 4 answers were respelled" in spelled.notes[0]
    assert "for example 't shirt' as 'T shirt'" in spelled.notes[0]


@pytest.mark.parametrize("metric", ["gqa", "clevr"])
def test_scores_say_what_was_respelled(metric: str) -> None:
    scores = score({1: "2"}, [Record(1, 1, "q", ("two",))], metric)
    assert scores.overall == 100
    assert "1 of 1 answers were respelled as the annotations spell them, for example '2' as 'two'" in scores.table()


# Multiple choice (VQA v1)

CHOICES = ("yes", "No.", "2", "the dog", *(f"choice {i}" for i in range(14)))


def choice_record(question_id: int, *answers: str) -> Record:
    return Record(question_id, 1, "q", answers, choices=CHOICES)


def test_a_choice_is_judged_as_in_the_open_task() -> None:
    records = [choice_record(1, *["the dog"] * 3, *["cat"] * 7), choice_record(2, *["No."] * 10)]
    scores = score({1: "the dog", 2: "No."}, records, "multiple_choice")
    assert scores.by_question == {"1": 90, "2": 100}
    # In our normal form ("dog", "no") the choice is recognized, and judged in that spelling.
    assert score({1: "dog", 2: "no"}, records, "multiple_choice").by_question == {"1": 90, "2": 100}
    assert score({1: "dog", 2: "no"}, records, "vqa_accuracy").by_question == {"1": 90, "2": 0}


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"r\.json: question_id 1: the answer 'cat' is none of its 18 choices \(yes, No"
    ):
        score({1: "cat"}, [choice_record(1, "cat", "cat")], "multiple_choice", where="r.json")
    with pytest.raises(ValueError, match="question_id 1 has no choices"):
        score({1: "cat"}, [Record(1, 1, "q", ("cat",))], "multiple_choice")


@given(st.lists(st.sampled_from(["yes", "Yes.", "no", "2 dogs", "two dogs"]), min_size=1, max_size=11))
def test_texts_and_entries_of_different_people_are_the_same(answers: list[str]) -> None:
    entries = [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers)]
    for prediction in ("yes", "2 dogs"):
        assert vqa_accuracy(prediction, answers) == vqa_accuracy(prediction, entries)


# CLEVR


def clevr_record(question_id: int, answer: str, function: str, family: int) -> Record:
    program = [{"function": "scene"}, {"function": function}]
    return Record(question_id, 1, "q", (answer,), extra={"program": program, "question_family_index": family})


def test_clevr_by_kind_and_family() -> None:
    rows = [
        ("yes", "exist", 1),
        ("3", "count", 1),
        ("no", "greater_than", 2),
        ("yes", "equal_integer", 2),
        ("no", "less_than", 2),
        ("red", "query_color", 3),
        ("cube", "query_shape", 3),
        ("yes", "equal_size", 4),
    ]
    records = [clevr_record(i, *row) for i, row in enumerate(rows)]
    answers = {i: row[0] for i, row in enumerate(rows)} | {3: "no", 6: "sphere"}
    scores = score(answers, records, "clevr")
    assert scores.overall == 75
    assert {name: (n.value, n.count) for name, n in scores.numbers["kind"].items()} == {
        "compare numbers": (66.67, 3),
        "query attribute": (50, 2),
        "compare attributes": (100, 1),
        "count": (100, 1),
        "exist": (100, 1),
    }
    assert {name: n.value for name, n in scores.numbers["question family"].items()} == {
        "2": 66.67,
        "1": 100,
        "3": 50,
        "4": 100,
    }
    plain = score({1: "yes"}, [Record(1, 1, "q", ("yes",))], "clevr")
    assert "kind" not in plain.numbers


# ANLS

SHORT = st.text(alphabet="abAB ", max_size=6)


def distance(first: str, second: str) -> int:
    """Levenshtein's recursion."""
    if not first or not second:
        return len(first) + len(second)
    same = distance(first[1:], second[1:]) + (first[0] != second[0])
    return min(same, distance(first[1:], second) + 1, distance(first, second[1:]) + 1)


@given(SHORT, SHORT)
def test_levenshtein_equals_its_recursion(first: str, second: str) -> None:
    assert levenshtein(first, second) == distance(first, second)


@given(SHORT, st.lists(SHORT, min_size=1, max_size=3))
def test_anls_equals_the_official_script(prediction: str, answers: list[str]) -> None:
    def plain(text: str) -> str:
        return " ".join(text.lower().split())

    similarities = []
    for answer in answers:
        longer = max(len(plain(answer)), len(plain(prediction)))
        nl = distance(plain(answer), plain(prediction)) / longer if longer else 0
        similarities.append(1 - nl)
    best = max(similarities)
    assert anls(prediction, answers) == pytest.approx(0 if best < 0.5 else best)


@pytest.mark.parametrize(
    ("prediction", "answers", "similarity"),
    [
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("COCA  Cola", ["coca cola"], 1),
        ("coke", ["coca cola", "coke!"], 0.8),
        ("ab", ["ac"], 0.5),  # exactly the threshold counts, as in the official script
        ("a", ["ab"], 0.5),
        ("ab", ["acd"], 0),
        ("", ["x"], 0),
    ],
)
def test_anls_by_hand(prediction: str, answers: list[str], similarity: float) -> None:
    assert anls(prediction, answers) == pytest.approx(similarity)
    scores = score({1: prediction}, [Record(1, 1, "q", tuple(answers))], "anls")
    assert scores.overall == round(100 * similarity, 2)


# Medical


@pytest.mark.parametrize(
    ("prediction", "answer", "f1"),
    [
        ("left lung", "Left lung.", 1),
        ("lung", "left lung", 2 / 3),
        ("left left lung", "left lung", 0.8),
        ("heart", "left lung", 0),
        ("HER2+", "HER2-", 0),
        ("liver and spleen", "liver, spleen", 0.8),
        ("肝脏", "肝脏和脾脏", 4 / 7),
        ("", "lung", 0),
    ],
)
def test_token_f1(prediction: str, answer: str, f1: float) -> None:
    assert token_f1(prediction, answer) == pytest.approx(f1)


def test_closed_and_open_questions() -> None:
    records = [
        Record(1, 1, "q", ("Yes",), answer_type="CLOSED"),
        Record(2, 1, "q", ("no",)),  # PathVQA states no type
        Record(3, 1, "q", ("yes",), answer_type="OPEN"),  # SLAKE has such
        Record(4, 2, "q", ("left lung",), answer_type="other"),
        Record(5, 2, "q", ("right upper lobe",)),
    ]
    scores = score({1: "yes", 2: "yes", 3: "yes", 4: "lung", 5: "right lobe of lung"}, records, "medical")
    assert scores.overall == 40
    assert others(scores) == {
        "closed accuracy": 50,
        "open exact match": 33.33,
        "open token F1": round(100 * (1 + 2 / 3 + 4 / 7) / 3, 2),
        "open token recall": round(100 * (1 + 1 / 2 + 2 / 3) / 3, 2),
    }


def test_a_okvqa_is_judged_as_by_its_authors() -> None:
    # min(1, matches / 3) of the direct answers as they are; a choice is right or wrong, and what is no choice is wrong.
    right = {"choices": ("bus", "car", "Tram", "boat"), "multiple_choice_answer": "Tram"}
    answers = ("tram", "tram", "Tram", "Tram", "Tram", "bus", "train", "train", "t", "u")
    records = [Record(number, number, "what is it?", answers, **right) for number in range(5)]
    judgement = judge_a_okvqa(Submission(records, ["tram", "Tram", "bus", "TRAM", "train"]))
    np.testing.assert_allclose(judgement.worth, [2 / 3, 1, 1 / 3, 0, 2 / 3])
    np.testing.assert_array_equal(judgement.means["multiple choice"], [0, 1, 0, 0, 0])
    assert judgement.notes == ["multiple choice: 3 of 5 answers are none of the choices and count as wrong"]


def test_direct_answers_of_difficult_questions_do_not_count() -> None:
    right = {"choices": ("bus", "Tram"), "multiple_choice_answer": "Tram"}
    marks: list[dict[str, object]] = [{"difficult_direct_answer": mark} for mark in (False, True, True)]
    records = [
        Record(number, 1, "what is it?", ("Tram",) * 10, **right, extra=mark)
        for number, mark in enumerate([{}, *marks])
    ]
    judgement = judge_a_okvqa(Submission(records, ["Tram", "x", "Tram", "bus"]))
    np.testing.assert_array_equal(judgement.worth, [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(judgement.means["multiple choice"], [1, 0, 1, 0])
    with pytest.raises(ValueError, match="none of the 2 questions counts for the metric a_okvqa"):
        score({2: "Tram", 3: "bus"}, records[2:], "a_okvqa")
    unclear = Record(7, 1, "what is it?", ("Tram",), extra={"difficult_direct_answer": "no"})
    with pytest.raises(ValueError, match="question_id 7: 'difficult_direct_answer' is 'no', must be true or false"):
        judge_a_okvqa(Submission([unclear], ["Tram"]))
