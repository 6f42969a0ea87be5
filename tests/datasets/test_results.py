from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coattn.datasets.doubt import Doubt
from coattn.datasets.records import Record
from coattn.datasets.results import FORMS, Results, default_name, read_results, write_results

RECORDS = [Record(20, "a.jpg", "what?", extra={"image": "VizWiz_a.jpg"}), Record("7", 3, "how?")]
RESULTS = Results({20: "yes", "7": "two “dogs”"}, {20: 0.123456789, "7": 1.0}, {20: 0.25, "7": 0.5})


def save(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_results(tmp_path: Path) -> None:
    good = [{"question_id": 1, "answer": "yes"}, {"question_id": "b", "answer": ""}]
    assert read_results(save(tmp_path / "r.json", good)) == Results({1: "yes", "b": ""})
    sure = [{**result, "confidence": share, "extra": None} for result, share in zip(good, (0, 0.5), strict=True)]
    assert read_results(save(tmp_path / "r.json", sure)) == Results({1: "yes", "b": ""}, {1: 0.0, "b": 0.5})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([{"question_id": 1, "answer": "a"}] * 2, r"result 1 \(question_id 1\).*appeared before"),
        ([{"question_id": 1, "answer": 2}], "result 0.*answer is 2"),
        ([{"question_id": 1}], "result 0.*no 'answer'"),
        ([{"answer": "x"}], "result 0.*no 'question_id'"),
        ([["a"]], "result 0.*a list, must be an object"),
        ({"questions": []}, "result file is a list.*file of questions"),
        (
            '[{"question_id": 1, "answer": "a", "confidence": NaN}]',
            r"\(question_id 1\): confidence is nan, must be a num",
        ),
        ('[{"question_id": 1, "answer": "a", "confidence": Infinity}]', "confidence is inf, must be"),
        ([{"question_id": 1, "answer": "a", "confidence": 1.01}], r"confidence is 1\.01, must be a number in \[0, 1\]"),
        ([{"question_id": 1, "answer": "a", "confidence": "high"}], r"confidence is 'high' \(text\)"),
        ([{"question_id": 1, "answer": "a", "confidence": True}], r"confidence is True \(a boolean\)"),
        ([{"question_id": 1, "answer": "a", "confidence": None}], "confidence is None"),
        (
            [{"question_id": 1, "answer": "a", "confidence": 1}, {"question_id": 2, "answer": "a"}],
            r"result 1 \(question_id 2\): has no 'confidence', unlike those before it",
        ),
        (
            [{"question_id": 1, "answer": "a"}, {"question_id": 2, "answer": "a", "answerable": 1}],
            "result 1.*has 'answerable', unlike those before it",
        ),
        (
            [{"question_id": 1, "answer": "a", "withheld": "no"}],
            r"\(question_id 1\): withheld is 'no', must be true or",
        ),
        ([{"question_id": 1, "answer": "a", "reasons": "unlike"}], "reasons is unlike, must be a list of texts"),
        ([{"question_id": 1, "answer": "a", "unknown_words": [7]}], r"unknown_words is \[7\], must be a list of texts"),
        ("[{", r"not valid JSON \(line 1"),
    ],
)
def test_bad_results_are_named(bad: Any, words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "r.json", bad)
    with pytest.raises(ValueError, match=words) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "the file is empty"),
        ("image,answer\na.jpg,yes\n", "has no question_id; `coattn predict --output results.json` writes"),
        ("question_id,answer\n20,yes\n20,no\n", r"result 1 \(question_id 20\): this question_id appeared before"),
        ("question_id,answer,confidence\n20,yes,high\n", "line 2: confidence must be a number"),
        ("question_id,answer,withheld\n20,yes,maybe\n", "line 2: .*withheld yes or no"),
        ("question_id,answer\n20,yes,5\n", "line 2: has 3 cells for 2 columns"),
    ],
)
def test_bad_tables_of_results_are_named(table: str, words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "r.csv", table)
    with pytest.raises(ValueError, match=f"r.csv: .*{words}"):
        read_results(path, RECORDS)


def test_ours_comes_back_and_official_code_finds_its_keys(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", RESULTS, RECORDS)
    entries = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert entries[0] == {"question_id": 20, "answer": "yes", "confidence": 0.123457}
    assert read_results(tmp_path / "r.json").answers == RESULTS.answers
    write_results(tmp_path / "r.json", Results(RESULTS.answers), RECORDS)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))[0] == {"question_id": 20, "answer": "yes"}


def test_doubts_come_back(tmp_path: Path) -> None:
    doubts = {20: Doubt(True, ("No risk can be promised.",), ("pink",)), "7": Doubt()}
    write_results(tmp_path / "r.json", replace(RESULTS, doubts=doubts), RECORDS)
    entry = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))[0]
    assert entry == {
        "question_id": 20,
        "answer": "yes",
        "confidence": 0.123457,
        "withheld": True,
        "reasons": ["No risk can be promised."],
        "unknown_words": ["pink"],
    }
    assert read_results(tmp_path / "r.json").doubts == doubts
    partly = [{"question_id": 1, "answer": "a", "withheld": True}, {"question_id": 2, "answer": "a"}]
    assert read_results(save(tmp_path / "r.json", partly)).doubts == {1: Doubt(True)}


def test_a_table_has_the_questions_and_the_doubts(tmp_path: Path) -> None:
    doubts = {20: Doubt(True, ("Unlike.", "Unknown."), ("pink", "pale, cyan")), "7": Doubt()}
    write_results(tmp_path / "r.csv", replace(RESULTS, doubts=doubts), RECORDS, form="csv")
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "question_id": "20",
        "image_id": str(RECORDS[0].image_id),
        "question": RECORDS[0].question,
        "answer": "yes",
        "confidence": "0.123457",
        "withheld": "yes",
        "reasons": "Unlike. Unknown.",
        "unknown_words": "pink, pale, cyan",
    }
    assert [second[name] for name in ("answer", *Doubt._fields)] == ["two “dogs”", "no", "", ""]
    again = read_results(tmp_path / "r.csv", RECORDS)
    assert again.answers == RESULTS.answers
    assert again.confidences == {20: 0.123457, "7": 1.0}
    assert again.doubts == {20: Doubt(True, ("Unlike. Unknown.",), ("pink", "pale", "cyan")), "7": Doubt()}
    write_results(tmp_path / "r.csv", Results({}), [], form="csv")
    assert (tmp_path / "r.csv").read_text(encoding="utf-8") == "question_id,image_id,question,answer\n"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_result_file_is_made_record_by_record(form: str) -> None:
    parts = FORMS[form](RESULTS, iter(RECORDS))
    first = next(part for part in parts if "yes" in part)
    assert "two" not in first
    assert any("two" in part for part in parts)


def test_the_servers_get_what_they_take(tmp_path: Path) -> None:
    texts = {}
    for form in FORMS:
        write_results(tmp_path / form, RESULTS, RECORDS, form=form)
        texts[form] = (tmp_path / form).read_text(encoding="utf-8")
    assert json.loads(texts["gqa"]) == [
        {"questionId": "20", "prediction": "yes"},
        {"questionId": "7", "prediction": "two “dogs”"},
    ]
    assert texts["clevr"] == "yes\ntwo “dogs”\n"
    assert json.loads(texts["vizwiz"]) == [
        {"image": "VizWiz_a.jpg", "answer": "yes", "answerable": 0.25},
        {"image": 3, "answer": "two “dogs”", "answerable": 0.5},
    ]
    write_results(tmp_path / "v", Results({20: "yes", "7": "unanswerable"}), RECORDS, form="vizwiz")
    entries = json.loads((tmp_path / "v").read_text(encoding="utf-8"))
    assert [entry["answerable"] for entry in entries] == [1.0, 0.0]
    with pytest.raises(ValueError, match="'coco', must be one of vqa, gqa, clevr, vizwiz"):
        write_results(tmp_path / "x", RESULTS, RECORDS, form="coco")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_that_is_written_is_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / default_name("test", form)
    write_results(path, RESULTS, RECORDS, form=form)
    again = read_results(path, RECORDS)
    assert {str(key): answer for key, answer in again.answers.items()} == {"20": "yes", "7": "two “dogs”"}
    assert len(again.confidences) == (2 if form in ("vqa", "csv") else 0)
    assert again.answerable == (RESULTS.answerable if form == "vizwiz" else {})


def test_names_carry_the_form() -> None:
    assert [default_name("val", form) for form in FORMS] == [
        "val.json",
        "val.gqa.json",
        "val.clevr.txt",
        "val.vizwiz.json",
        "val.csv",
    ]


def test_other_peoples_forms(tmp_path: Path) -> None:
    choices = {"q1": {"multiple_choice": "pan", "direct_answer": "wok"}, "q2": {"multiple_choice": "pot"}}
    assert read_results(save(tmp_path / "a.json", choices)) == Results(
        {"q1": "wok", "q2": "pot"}, chosen={"q1": "pan", "q2": "pot"}
    )
    assert read_results(save(tmp_path / "a.json", {"q1": "wok"})) == Results({"q1": "wok"})
    llava = (
        '{"question_id": 7, "prompt": "what?", "text": "a wok", "model_id": "m"}\n\n{"question_id": 8, "text": ""}\n'
    )
    assert read_results(save(tmp_path / "l.jsonl", llava)) == Results({7: "a wok", 8: ""})
    answerable = [{"image": "a.jpg", "answerable": 0.3}, {"image": "b.jpg", "answerable": 1}]
    assert read_results(save(tmp_path / "v.json", answerable)) == Results(
        {"a.jpg": "", "b.jpg": ""}, {}, {"a.jpg": 0.3, "b.jpg": 1.0}
    )
    assert read_results(save(tmp_path / "c.txt", "yes\n 3 \n"), RECORDS) == Results({20: "yes", "7": "3"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "yes\n", "1 lines for 2 questions; a text file has one answer per line"),
        ("l.jsonl", '{"question_id": 1, "text": "a"}\n{"question_id"', "line 2"),
        ("l.jsonl", '{"question_id": 1, "text": 2}', r"result 0 \(question_id 1\): text is 2"),
        ("a.json", '{"q1": {"choice": "pan"}}', "must be a text or an object with direct_answer or multiple_choice"),
        ("a.json", '{"q1": {"multiple_choice": "pan"}, "q2": "pot"}', "1 of 2 results have a multiple_choice"),
        ("v.json", '[{"image": "a", "answerable": 1}, {"image": "b"}]', "has no 'answerable'"),
    ],
)
def test_mistakes_in_other_forms_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(save(tmp_path / name, content), RECORDS)


def test_the_servers_own_files_are_read(tmp_path: Path) -> None:
    gqa = [{"questionId": "20", "prediction": "yes"}]
    assert read_results(save(tmp_path / "g.json", gqa)) == Results({"20": "yes"})
    vizwiz = [{"image": "a.jpg", "answer": "yes", "answerable": 0.3}]
    assert read_results(save(tmp_path / "v.json", vizwiz)) == Results({"a.jpg": "yes"}, {}, {"a.jpg": 0.3})


def test_an_object_of_something_else_is_described_in_short(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({str(number): ["yes"] for number in range(1000)}))
    with pytest.raises(ValueError, match=r"this has '0', '1', .* '19', \.\.\. \(1000 in all\)$"):
        read_results(path)
