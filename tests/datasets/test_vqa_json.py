"""The official JSON pair: what is read, what is refused, and that writing loses nothing."""

from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa, write_vqa


def entries(*texts: str) -> list[dict[str, Any]]:
    return [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(texts, start=1)]


QUESTIONS = {
    "info": {"version": "2.0"},
    "questions": [
        {"question_id": 10, "image_id": 1, "question": "What is it?"},
        {"question_id": 11, "image_id": 2, "question": "Is it red?", "difficulty": 3},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {"question_id": 11, "image_id": 2, "answers": entries("yes", "no", "no"), "answer_type": "yes/no"},
        {
            "question_id": 10,
            "image_id": 1,
            "answers": entries("cat", "dog", "dog"),
            "answer_type": "other",
            "question_type": "what is",
            "multiple_choice_answer": "cat",
        },
    ],
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, dict[str, Any], dict[str, Any]]:
    """Paths of a pair and its content, to be changed and saved by the test."""
    return tmp_path / "q.json", tmp_path / "a.json", copy.deepcopy(QUESTIONS), copy.deepcopy(ANNOTATIONS)


def save(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_records_hold_both_files(tmp_path: Path) -> None:
    data = read_vqa(save(tmp_path / "q.json", QUESTIONS), save(tmp_path / "a.json", ANNOTATIONS), split="train")
    first, second = data.records
    assert first == Record(
        10, 1, "What is it?", ("cat", "dog", "dog"), "other", "what is", "train", multiple_choice_answer="cat"
    )
    assert (first.answer, second.answer) == ("cat", "no")
    assert second.extra == {"difficulty": 3}
    assert data.metric == "vqa_accuracy"
    assert data.info == {"version": "2.0"}


def test_unknown_answers(tmp_path: Path) -> None:
    data = read_vqa(save(tmp_path / "q.json", QUESTIONS), None)
    assert [record.answers for record in data.records] == [(), ()]
    assert data.records[0].answer == ""


@pytest.mark.parametrize(
    ("counts", "info", "metric"),
    [
        ((1, 1), {}, "exact_match"),
        ((1, 2), {}, "vqa_accuracy"),
        ((3, 3), {"metric": "soft_accuracy"}, "soft_accuracy"),
        ((1, 1), {"metric": "vqa_accuracy"}, "vqa_accuracy"),
        ((3, 3), {"metric": "exact_match"}, "exact_match"),
    ],
)
def test_metric(pair: Any, counts: tuple[int, int], info: dict[str, str], metric: str) -> None:
    questions_path, annotations_path, questions, annotations = pair
    for annotation, count in zip(annotations["annotations"], counts, strict=True):
        annotation["answers"] = annotation["answers"][:count]
    annotations["info"] = info
    assert read_vqa(save(questions_path, questions), save(annotations_path, annotations)).metric == metric


def test_equal_entries_stay_equal(pair: Any, tmp_path: Path) -> None:
    questions_path, annotations_path, questions, annotations = pair
    same = {"answer": "cat", "answer_confidence": "yes", "answer_id": 1}
    given_entries = [same, dict(same), {**same, "answer": "dog"}, {**same, "answer_confidence": "no"}]
    annotations["annotations"][0]["answers"] = given_entries
    record = read_vqa(save(questions_path, questions), save(annotations_path, annotations)).records[1]
    write_vqa(tmp_path / "out", "x", [record], info={"metric": "vqa_accuracy"})
    again = read_vqa(tmp_path / "out/x_questions.json", tmp_path / "out/x_annotations.json").records[0]
    for built in (record.answer_entries(), again.answer_entries()):
        for i, left in enumerate(given_entries):
            assert [left == right for right in given_entries] == [built[i] == right for right in built]


def at(*path: str | int, value: Any = None, delete: bool = False) -> Any:
    """A change of the pair: ("q" or "a", key, ...) set to `value` or deleted."""

    def change(files: dict[str, Any]) -> None:
        target: Any = files
        for key in path[:-1]:
            target = target[key]
        if delete:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return change


Q, A = ("q", "questions"), ("a", "annotations")


@pytest.mark.parametrize(
    ("change", "file", "words"),
    [
        (at(*Q, 1, delete=True), "a.json", ["1 of its annotations", "no question in", "11"]),
        (at(*A, 1, delete=True), "q.json", ["question 0", "question_id 10", "no annotation", "a.json"]),
        (at(*Q, 1, "question_id", value=10), "q.json", ["question 1", "question_id 10", "appeared before"]),
        (at(*Q, 1, "question_id", value="10"), "q.json", ["question 1", "appeared before"]),
        (at(*A, 1, "question_id", value=11), "a.json", ["annotation 1", "question_id 11", "appeared before"]),
        (at(*Q, 0, "question_id", value=True), "q.json", ["question 0", "question_id is True", "integer"]),
        (at(*Q, 0, "question_id", value=1.5), "q.json", ["question 0", "question_id is 1.5"]),
        (at(*Q, 0, "image_id", value=None), "q.json", ["question 0", "image_id is None (null)"]),
        (at(*Q, 0, "image_id", value=""), "q.json", ["question 0", "non-empty"]),
        (at(*Q, 0, "question", value=None), "q.json", ["question 0", "question is None (null)", "text"]),
        (at(*Q, 0, "question", value=" \n"), "q.json", ["question 0", "empty"]),
        (at(*Q, 0, "question", value="What \ud800?"), "q.json", ["question 0", "half a character"]),
        (at(*Q, 0, "image_id", value="\udfff"), "q.json", ["question 0", "image_id", "half a character"]),
        (at(*A, 0, "answers", 1, "answer", value="\ud83d"), "a.json", ["annotation 0", "half a character"]),
        (at(*Q, 0, "question", delete=True), "q.json", ["question 0", "no 'question'", "'image_id'"]),
        (at(*Q, 0, value="What?"), "q.json", ["question 0", "text, must be an object"]),
        (at(*Q, 0, "multiple_choices", value="yes"), "q.json", ["question 0", "multiple_choices"]),
        (at(*A, 0, "answers", value=[]), "a.json", ["annotation 0", "question_id 11", "answers is empty"]),
        (at(*A, 0, "answers", value="yes"), "a.json", ["annotation 0", "answers is text"]),
        (at(*A, 0, "answers", value=["yes"]), "a.json", ["annotation 0", "'yes'", '{"answer": "yes"}']),
        (at(*A, 0, "answers", 0, "answer", value=3), "a.json", ["annotation 0", "question_id 11", "is text"]),
        (at(*A, 0, "answers", 1, value={}), "a.json", ["annotation 0", "question_id 11"]),
        (at(*A, 0, "answers", delete=True), "a.json", ["annotation 0", "question_id 11", "no 'answers'"]),
        (at(*A, 0, "answer_type", value=2), "a.json", ["annotation 0", "answer_type is 2"]),
        (at(*A, 0, "image_id", value=7), "q.json", ["question 1", "image 2", "image 7", "a.json"]),
        (at(*A, 0, value=None), "a.json", ["annotation 0", "null, must be an object"]),
        (at("a", "info", value={"metric": "bleu"}), "a.json", ["'bleu'", "vqa_accuracy, exact_match"]),
        (at("a", "info", value=[]), "a.json", ['"info" is a list']),
        (at("q", "questions", value={}), "q.json", ['"questions" is an object, must be a list']),
        (at("q", value=[{"question_id": 10, "answer": "cat"}]), "q.json", ["result files"]),
        (at("a", value=[{"question_id": 10, "answer": "cat"}]), "a.json", ["result files"]),
        (at("q", value=ANNOTATIONS), "q.json", ["file of annotations", "swapped"]),
        (at("a", value=QUESTIONS), "a.json", ["file of questions", "swapped"]),
        (at("q", value={"a": 1}), "q.json", ['"questions"', "this has 'a'"]),
        (at("q", value=3), "q.json", ["this is a number"]),
    ],
)
def test_refused(tmp_path: Path, change: Any, file: str, words: list[str]) -> None:
    files = {"q": copy.deepcopy(QUESTIONS), "a": copy.deepcopy(ANNOTATIONS)}
    change(files)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / file))) as caught:
        read_vqa(save(tmp_path / "q.json", files["q"]), save(tmp_path / "a.json", files["a"]))
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"questions": [', "not valid JSON (line 1"),
        (b"\xff\xfe\x00\xd8", "not UTF-8"),
        (b'{"questions": ["\xe9"]}', "not UTF-8 text (byte 16)"),
        (gzip.compress(json.dumps(QUESTIONS).encode())[:-9], "damaged gzip"),
        (b"\x1f\x8b\x08", "damaged gzip"),
        (b"[" * 200_000, "not usable JSON"),
        (b"9" * 10_000, "not usable JSON"),
        (b"", "is an empty file, not JSON"),
        (b"\x89PNG\r\n\x1a\n", "is an image, not JSON; give a JSON file"),
    ],
)
def test_broken_bytes(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"q\.json: ") as caught:
        read_vqa(path, None)
    assert words in str(caught.value)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read_vqa(tmp_path / "nothing.json", None)


def test_byte_order_mark_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(QUESTIONS).encode())
    (tmp_path / "q.json.gz").write_bytes(gzip.compress(json.dumps(QUESTIONS).encode()))
    assert read_vqa(tmp_path / "q.json", None) == read_vqa(tmp_path / "q.json.gz", None)


ids = st.one_of(st.integers(), st.text(min_size=1, max_size=8, alphabet=st.characters(codec="utf-8")))
texts = st.text(max_size=12, alphabet=st.characters(codec="utf-8"))
records = st.builds(
    Record,
    question_id=ids,
    image_id=ids,
    question=texts.filter(str.strip),
    answers=st.lists(texts, min_size=1, max_size=12).map(tuple),
    answer_type=texts,
    question_type=texts,
    split=st.just("val"),
    choices=st.lists(texts, max_size=3).map(tuple),
    extra=st.dictionaries(texts.map(lambda key: f"x {key}"), st.one_of(st.integers(), texts, st.none()), max_size=2),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(records, max_size=6, unique_by=lambda record: str(record.question_id)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Record]) -> None:
    folder = tmp_path_factory.mktemp("out")
    write_vqa(folder, "val", written, info={"metric": "exact_match"})
    data = read_vqa(folder / "val_questions.json", folder / "val_annotations.json", split="val")
    assert data.metric == "exact_match"
    assert len(data.records) == len(written)
    for read, record in zip(data.records, written, strict=True):
        assert (read.answer, read.answer_entries()) == (record.answer, record.answer_entries())
        for name in ("question_id", "image_id", "question", "answers", "answer_type", "question_type", "choices"):
            assert getattr(read, name) == getattr(record, name)
        assert read.extra == record.extra


def test_write_refuses_half_answered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of 2 questions have no answer.*'b'"):
        write_vqa(tmp_path, "x", [Record("a", 1, "q", ("yes",)), Record("b", 1, "q")], info={"metric": "exact_match"})
    with pytest.raises(ValueError, match=r"info\['metric'\] is None"):
        write_vqa(tmp_path, "x", [], info={})
    assert list(tmp_path.iterdir()) == []


def test_write_without_answers(tmp_path: Path) -> None:
    files = write_vqa(tmp_path, "test", [Record("a", 1, "q")], info={"metric": "exact_match"})
    assert [file.name for file in files] == ["test_questions.json"]
    assert read_vqa(files[0], None).metric == "exact_match"


def test_extra_cannot_pass_for_the_format(tmp_path: Path) -> None:
    record = Record(1, 2, "q", ("yes",), extra={"split": 3, "multiple_choices": "no", "image_id": 9, "organ": "lung"})
    questions, annotations = write_vqa(tmp_path, "x", [record], info={"metric": "exact_match"})
    read = read_vqa(questions, annotations).records[0]
    assert (read.image_id, read.split, read.choices, read.extra) == (2, "", (), {"organ": "lung"})


def test_real_files(shared_data: Path) -> None:
    subset, fixtures = shared_data / "vqa_v2_subset", shared_data / "official_format_fixtures" / "vqav2"
    for split, count in (("train", 48061), ("valid", 8977), ("test", 2962)):
        data = read_vqa(subset / f"vqa_questions_{split}.json.gz", subset / f"vqa_annotations_{split}.json.gz")
        assert (len(data.records), data.metric) == (count, "vqa_accuracy")
        assert {record.split for record in data.records} == {split}
        assert {len(record.answers) for record in data.records} == {10}
        assert not any(record.extra or record.voters for record in data.records)
    data = read_vqa(fixtures / "questions.json", fixtures / "annotations.json")
    assert [record.question_id for record in data.records] == [458752000, 458752001, 458752002]
    assert data.records[0].answer == "net"
