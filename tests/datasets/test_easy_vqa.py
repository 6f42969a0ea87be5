"""easy-VQA from its package."""

from __future__ import annotations

import pytest

from coattn.datasets.easy_vqa import read_easy_vqa
from coattn.datasets.prepared import Dataset

pytest.importorskip("easy_vqa", reason="the package easy-vqa is not installed")


@pytest.fixture(scope="module")
def easy() -> Dataset:
    return read_easy_vqa()


def test_splits(easy: Dataset) -> None:
    images = {split: {record.image_id for record in records} for split, records in easy.splits.items()}
    assert {split: len(ids) for split, ids in images.items()} == {"train": 3600, "val": 400, "test": 1000}
    assert len(set.union(*images.values())) == 5000
    assert set.union(*images.values()) == set(easy.images)
    assert len(easy.splits["train"]) + len(easy.splits["val"]) == 38575
    assert len(easy.splits["test"]) == 9673
    assert all(path.is_file() for path in easy.images.values())
    assert len({record.question_id for records in easy.splits.values() for record in records}) == 38575 + 9673


def test_types_set_negated_questions_apart(easy: Dataset) -> None:
    test = easy.splits["test"]
    assert {record.answer_type for record in test} == {"yes/no", "other"}
    assert sum(record.answer_type == "yes/no" for record in test) == 7136  # as the package's own README counts
    for record in test:
        words = record.question.rstrip("?").split()
        if record.question_type == "yes/no, negated":
            assert "not" in words or words[:2] == ["is", "no"]
        elif record.question_type == "yes/no":
            assert words[:2] in (["is", "there"], ["is", "a"], ["does", "the"])
            assert "not" not in words
        else:
            assert words[0] == "what"
            assert (record.question_type == "shape") == (record.answer in {"circle", "rectangle", "triangle"})
