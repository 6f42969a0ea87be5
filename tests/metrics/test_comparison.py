from __future__ import annotations

from dataclasses import replace

import pytest

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.comparison import ALL, Comparison, compare_answers

RECORDS = [
    Record(
        number,
        f"img{number // 2}",
        "what is it?",
        ("yes" if number % 2 else "cat",),
        "yes/no" if number % 2 else "other",
    )
    for number in range(40)
]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    right = {record.question_id: record.answer for record in RECORDS}
    return compare_answers(
        {
            "model": Results(right | {0: "dog"}),
            "twin": Results(dict.fromkeys(right, "cat")),
            "prior": Results(dict.fromkeys(right, "yes")),
        },
        RECORDS,
        "exact_match",
        num_samples=200,
    )


def test_scores_and_differences_by_answer_type(comparison: Comparison) -> None:
    values = {
        (name, group): comparison.number(name, group).value
        for name in comparison.scores
        for group in comparison.differences
    }
    assert values == {
        ("model", ALL): 97.5, ("model", "other"): 95.0, ("model", "yes/no"): 100.0,
        ("twin", ALL): 50.0, ("twin", "other"): 100.0, ("twin", "yes/no"): 0.0,
        ("prior", ALL): 50.0, ("prior", "other"): 0.0, ("prior", "yes/no"): 100.0,
    }  # fmt: skip
    differences = {
        group: {name: round(d.value, 6) for name, d in by.items()} for group, by in comparison.differences.items()
    }
    assert differences == {
        ALL: {"twin": 47.5, "prior": 47.5},
        "other": {"twin": -5.0, "prior": 95.0},
        "yes/no": {"twin": 100.0, "prior": 0.0},
    }
    assert comparison.differences["yes/no"]["prior"].p_value == 1
    assert comparison.differences[ALL]["twin"].p_value < 0.01


def test_table_and_markdown_have_the_same_cells(comparison: Comparison) -> None:
    titles, overall, *groups = comparison.table().splitlines()
    assert titles.split() == ["questions", "model", "twin", "prior", "model", "-", "twin"]
    assert overall.startswith("all questions  40         97.5 (92.5-100.0)")
    assert [line.split()[0] for line in groups] == ["other", "yes/no"]
    lines = comparison.markdown().splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == comparison.rows()[1]
    assert lines[1].count("---") == len(comparison.rows()[0])


@pytest.mark.parametrize(
    ("types", "kinds", "note"),
    [
        (("",), "", "divide them by columns answer_type and question_type"),
        (("who", "what"), "question type", "by their own type"),
    ],
)
def test_answers_of_one_type_are_divided_by_the_questions(types: tuple[str, ...], kinds: str, note: str) -> None:
    records = [
        replace(record, question_type=types[number // 2 % len(types)])
        for number, record in enumerate(RECORDS)
        if record.answer_type == "other"
    ]
    answers = Results({record.question_id: "cat" for record in records})
    comparison = compare_answers({"a": answers, "b": answers}, records, "exact_match", num_samples=10)
    assert (comparison.kinds, list(comparison.differences)) == (kinds, [ALL, *types] if kinds else [ALL])
    value, low, high, _ = comparison.differences[ALL]["b"]
    assert (value, low) == (0, -high)
    assert note in comparison.table().splitlines()[-1]
    assert note in comparison.markdown().splitlines()[-1]
