"""The fast way of reading questions and annotations gives what the general way gives, errors included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coattn.datasets import fast_entries
from coattn.datasets.vqa_json import read_vqa

USUAL = {
    "question_id": 1,
    "image_id": 7,
    "answers": [{"answer": "red", "answer_confidence": "yes", "answer_id": 1}, {"answer": "blue", "answer_id": 2}],
    "answer_type": "other",
    "question_type": "what",
    "multiple_choice_answer": "red",
}
QUESTION = {"question_id": 1, "image_id": 7, "question": "why?"}
odd = st.sampled_from([None, True, 1, 1.0, "", "a", " ", "é", "\ud800", "x" * 20_001, [], {}, [{"answer": "a"}]])
answer = st.fixed_dictionaries({"answer": st.sampled_from(["red", "é", 5])}, optional={"answer_id": odd, "more": odd})
changes = st.dictionaries(st.sampled_from([*USUAL, "group"]), odd, max_size=2) | st.fixed_dictionaries(
    {"answers": st.lists(answer, max_size=3)}
)
question_changes = st.dictionaries(st.sampled_from([*QUESTION, "split", "multiple_choices", "group"]), odd, max_size=2)


def read(folder: Path, annotation: dict[str, Any], question: dict[str, Any] = QUESTION) -> object:
    (folder / "q.json").write_text(json.dumps({"questions": [question]}))
    (folder / "a.json").write_text(json.dumps({"annotations": [annotation]}))
    try:
        return read_vqa(folder / "q.json", folder / "a.json")
    except ValueError as error:
        return str(error)


@given(change=changes, missing=st.sampled_from(["", *USUAL]))
@example(change={}, missing="")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same(tmp_path: Path, change: dict[str, Any], missing: str) -> None:
    annotation = {key: value for key, value in {**USUAL, **change}.items() if key != missing}
    with pytest.MonkeyPatch.context() as patch:
        fast = read(tmp_path, annotation)
        patch.setattr(fast_entries, "decode_annotation", lambda entry: None)
        assert read(tmp_path, annotation) == fast


@given(change=question_changes, missing=st.sampled_from(["", *QUESTION]))
@example(change={}, missing="")
@example(change={"image_id": 8}, missing="")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_question(tmp_path: Path, change: dict[str, Any], missing: str) -> None:
    question = {key: value for key, value in {**QUESTION, **change}.items() if key != missing}
    with pytest.MonkeyPatch.context() as patch:
        fast = read(tmp_path, USUAL, question)
        patch.setattr(fast_entries, "decode_question", lambda entry: None)
        assert read(tmp_path, USUAL, question) == fast


def test_the_form_of_vqa_v2_is_decoded_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coattn.datasets.vqa_json._annotation", None)
    monkeypatch.setattr("coattn.datasets.vqa_json._question", None)
    data = read(tmp_path, USUAL)
    assert data.records[0].answers == ("red", "blue")  # type: ignore[attr-defined]
