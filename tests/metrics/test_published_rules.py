"""Scores equal an independent computation of the published rules, on generated predictions.

The computations below are written from the published rules (see the docstring of each) and use nothing of coattn.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict

import pytest

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.score import METRICS, column_groups, score

PIECES = [
    *("yes", "Yes", "No.", "none", "None", "two", "2", "10", "1,000", "1000", "3.5", ".5", "the", "a", "An", "red"),
    *("t-shirt", "T shirt", "what's", "dont", "don't", "couldnt've", "coca-cola", "men's", "x / y", "(left)", "-", "+"),
    *("HER2+", "?", "!", "STOP!", "p.m.", "$5", "50%", "tab\there", "blue,white", "blue, white", "unanswerable"),
]
CONTRACTIONS = {"dont": "don't", "couldnt've": "couldn't've", "whats": "what's"}
NUMBERS = dict(zip("none zero one two three four five six seven eight nine ten".split(), [0, *range(11)], strict=True))  # noqa: SIM905
MARKS = ';/[]"{}()=+\\_-><@`,?!'


def generated(draws: random.Random, number: int) -> list[tuple[str, list[str]]]:
    """Predictions with ten human answers each, in which each prediction often occurs, perhaps typed otherwise."""

    def text() -> str:
        return " ".join(draws.choice(PIECES) for _ in range(draws.choice([1, 1, 1, 2, 3])))

    rows = []
    for _ in range(number):
        common = [text() for _ in range(draws.randint(1, 4))]
        spelled = [draws.choice([word, word, word.capitalize(), f"{word}.", f"the {word}"]) for word in common]
        rows.append((draws.choice([*common, *spelled, text()]), [draws.choice([*common, *spelled]) for _ in range(10)]))
    return rows


def normal_form(text: str) -> str:
    """The processing of punctuation, numbers and articles of the VQA evaluation."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    joined = re.search(r"(?<=\d),+(?=\d)", text)
    out = text
    for mark in MARKS:
        out = out.replace(mark, "" if joined or f"{mark} " in text or f" {mark}" in text else " ")
    out = re.sub(r"\.(?!\d)", "", out, count=32)
    words = [str(NUMBERS.get(word, word)) for word in out.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def each_left_out(prediction: str, answers: list[str]) -> float:
    """The mean over the answers of min(1, matches among the others / 3)."""
    accuracies = []
    for place in range(len(answers)):
        matches = [answer for other, answer in enumerate(answers) if other != place and answer == prediction]
        accuracies.append(min(1.0, len(matches) / 3))
    return sum(accuracies) / len(accuracies)


def test_textvqa_equals_mmf() -> None:
    """MMF normalizes prediction and answers always, after a treatment of ``,``, ``?`` and ``'s``."""

    def mmf(text: str) -> str:
        return normal_form(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())

    rows = generated(random.Random(1), 1500)
    records = [Record(i, i, "q", tuple(answers)) for i, (_, answers) in enumerate(rows)]
    scores = score({i: prediction for i, (prediction, _) in enumerate(rows)}, records, "textvqa")
    expected = [each_left_out(mmf(prediction), [mmf(answer) for answer in answers]) for prediction, answers in rows]
    assert list(scores.by_question.values()) == pytest.approx([100 * value for value in expected], abs=0.0051)
    assert 20 < scores.overall < 95


@pytest.mark.parametrize("typed", ["Acme", "acme.", "ACME"])
def test_textvqa_normalizes_where_all_people_agree(typed: str) -> None:
    assert score({1: typed}, [Record(1, 1, "q", ("acme",) * 10)], "textvqa").overall == 100


def test_vizwiz_equals_its_evaluation() -> None:
    """VizWiz compares the normal form of the prediction with the answers as they are."""
    rows = generated(random.Random(2), 1500)
    rows = [(prediction, [normal_form(answer) for answer in answers]) for prediction, answers in rows]
    records = [Record(i, i, "q", tuple(answers)) for i, (_, answers) in enumerate(rows)]
    scores = score({i: prediction for i, (prediction, _) in enumerate(rows)}, records, "vizwiz")
    expected = [each_left_out(normal_form(prediction), answers) for prediction, answers in rows]
    assert list(scores.by_question.values()) == pytest.approx([100 * value for value in expected], abs=0.0051)


def test_vqa_accuracy_equals_its_evaluation() -> None:
    """VQA normalizes both sides unless all people typed the same."""
    rows = generated(random.Random(3), 1500)
    records = [Record(i, i, "q", tuple(answers)) for i, (_, answers) in enumerate(rows)]
    scores = score({i: prediction for i, (prediction, _) in enumerate(rows)}, records, "vqa_accuracy")
    expected = []
    for prediction, answers in rows:
        clean = [answer.replace("\t", " ").strip() for answer in answers]
        form = normal_form if len(set(clean)) > 1 else str
        expected.append(each_left_out(form(prediction.replace("\t", " ").strip()), [form(answer) for answer in clean]))
    assert list(scores.by_question.values()) == pytest.approx([100 * value for value in expected], abs=0.0051)


def test_a_okvqa_equals_its_authors_script() -> None:
    """Letter by letter: min(1, matches / 3) of the direct answers; the right choice, else wrong."""
    draws = random.Random(4)
    words = ["pan", "pot", "cup", "jar", "wok", "Pan", "frying pan"]
    records, direct, chosen = [], {}, {}
    for number in range(1200):
        choices = tuple(draws.sample(words, 4))
        answers = tuple(draws.choice(words[:3]) for _ in range(10))
        records.append(Record(f"q{number}", number, "q", answers, "", "", "", choices, draws.choice(choices)))
        direct[f"q{number}"], chosen[f"q{number}"] = draws.choice(words), draws.choice([*choices, "none"])
    expected = [min(1.0, record.answers.count(direct[str(record.question_id)]) / 3) for record in records]
    right = [chosen[str(record.question_id)] == record.multiple_choice_answer for record in records]
    scores = score(Results(direct, chosen=chosen), records, "a_okvqa")
    assert scores.overall == pytest.approx(100 * sum(expected) / 1200, abs=0.0051)
    number = scores.numbers["other numbers"]["multiple choice"]
    assert (number.value, number.count) == (pytest.approx(100 * sum(right) / 1200, abs=0.0051), 1200)
    # A file of direct answers alone: answers that are no choice are wrong, as in the script.
    right = [direct[str(record.question_id)] == record.multiple_choice_answer for record in records]
    again = score(direct, records, "a_okvqa").numbers["other numbers"]["multiple choice"]
    assert (again.value, again.count) == (pytest.approx(100 * sum(right) / 1200, abs=0.0051), 1200)


def test_gqa_ood_equals_the_accuracies_of_its_parts() -> None:
    """GQA-OOD: GQA's accuracy, letter by letter, of all questions, of the head and of the tail."""
    draws = random.Random(5)
    words = ["yes", "no", "left", "right", "light blue", "t-shirt", "none"]
    records, answers, parts = [], {}, defaultdict(list)
    for number in range(1500):
        part, gold = draws.choice(["head", "tail"]), draws.choice(words)
        records.append(Record(number, number, "q", (gold,), extra={"part": part, "isBalanced": True}))
        answers[number] = gold if draws.random() < 0.4 else draws.choice(words)
        parts[part].append(answers[number] == gold)
    scores = score(answers, records, "gqa", groups={"part": column_groups(records, "part")})
    for part, right in parts.items():
        assert scores.numbers["part"][part].value == pytest.approx(100 * sum(right) / len(right), abs=0.0051)
    assert scores.overall == pytest.approx(100 * sum(map(sum, parts.values())) / 1500, abs=0.0051)


def test_every_metric_is_known_to_the_data_sets() -> None:
    from coattn.datasets import records

    assert set(records.METRICS) == set(METRICS)
