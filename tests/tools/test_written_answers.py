"""tools/written_answers.py: kinds of answers, and the overlap of items."""

from __future__ import annotations

import numpy as np
import pytest

import written_answers
from coattn.datasets.records import Record


def asked(*answers: str) -> list[Record]:
    return [Record(number, f"image{number}", "what", (answer,)) for number, answer in enumerate(answers)]


TRAIN = asked("chair", "garbage_bin", "chair, table")
TEST = asked("chair", "garbage_bin", "chair, table", "table, chair", "table bin", "sofa")


def test_answers_are_sorted_by_kind() -> None:
    kinds = written_answers.kinds(TRAIN, TEST)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in kinds.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "one word": [0, 5],
        "one thing in several words": [1, 4],
        "a list": [2, 3],
        "not in training": [3, 4, 5],
        "not in training, its words are": [3, 4],
        "a list, not in training": [3],
    }


def test_the_overlap_is_the_f1_of_the_items() -> None:
    assert written_answers.items("Lamp, garbage_bin, lamp") == {"lamp", "garbage bin"}
    answers = dict(enumerate(["chair", "chair", "chair, table", "chair", "table bin", "chair, sofa"]))
    found = written_answers.overlaps(answers, TEST)
    assert found == pytest.approx([1, 0, 1, 2 / 3, 1, 2 / 3])


def test_the_table_has_the_difference_by_kind() -> None:
    writes, chooses = np.zeros((3, 6)), np.zeros((3, 6))
    writes[:, 3] = chooses[:2, 0] = 1
    worth = dict(zip(written_answers.NAMES, (writes, chooses), strict=True))
    images = [record.image_id for record in TEST]
    table = written_answers.format_table("exact match, %", worth, written_answers.kinds(TRAIN, TEST), images)
    rows = {line[:32].strip(): line[32:].split() for line in table.splitlines()}
    assert rows["a list"][:4] == ["2", "50.00", "0.00", "+50.00"]
    assert rows["one word"][:4] == ["2", "0.00", "33.33", "-33.33"]
    assert rows["a list, not in training"][3:] == ["+100.00", "(-58.69", "to", "+100.00)"]
