from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coattn.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "vqa_eval"


def arguments(folder: Path, prefix: str = "") -> list[str]:
    return [
        "score",
        str(folder / f"{prefix}results.json"),
        "--questions",
        str(folder / f"{prefix}questions.json"),
        "--annotations",
        str(folder / f"{prefix}annotations.json"),
    ]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with two questions of one answer each, and their results."""
    questions = [{"question_id": i, "image_id": 1, "question": "what?"} for i in (1, 2)]
    annotations = [
        {"question_id": i, "image_id": 1, "answers": [{"answer": "Cat", "answer_id": 1}], "answer_type": "other"}
        for i in (1, 2)
    ]
    write(tmp_path / "questions.json", {"info": {}, "questions": questions})
    write(tmp_path / "annotations.json", {"info": {}, "annotations": annotations})
    write(tmp_path / "results.json", [{"question_id": 1, "answer": "cat"}, {"question_id": 2, "answer": "dog"}])
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("prefix", ["", "malformed_"])
def test_golden_files(prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((GOLDEN / f"{prefix}expected.json").read_text(encoding="utf-8"))
    out = tmp_path / "out.json"
    assert main([*arguments(GOLDEN, prefix), "--json", str(out)]) == 0
    scores = json.loads(out.read_text(encoding="utf-8"))
    assert set(scores) == {"metric", "overall", "by_answer_type", "by_question_type", "by_question"}
    assert scores["metric"] == "vqa_accuracy"
    assert scores["overall"] == expected["overall"]
    assert scores["by_question"] == expected["accuracy_by_question"]
    assert scores["by_answer_type"] == expected.get("by_answer_type", scores["by_answer_type"])
    printed = capsys.readouterr().out
    assert f"vqa_accuracy {len(scores['by_question'])} {expected['overall']:.2f}" in " ".join(printed.split())
    for name in scores["by_question_type"]:
        assert f"\n{name} " in printed


def test_metric_follows_the_data_and_can_be_overridden(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small / "out.json"
    assert main([*arguments(small), "--json", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert (scores["metric"], scores["overall"]) == ("exact_match", 50)
    assert scores["by_question"] == {"1": 100, "2": 0}
    assert main([*arguments(small), "--metric", "vqa_accuracy", "--json", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert (scores["metric"], scores["overall"]) == ("vqa_accuracy", 0)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"question_id": 1, "answer": "cat"}], "1 of 2 questions have no result, for example question_id 2"),
        ([{"question_id": i, "answer": "cat"} for i in (1, 2, 3)], "example question_id 3"),
        ([{"question_id": i, "answer": "cat"} for i in (1, 2, 2)], "result 2 (question_id 2)"),
        ([{"question_id": i, "answer": "cat"} for i in (1, 2, "2")], "question_id 2 is answered twice"),
        ([{"question_id": 1, "answer": 3}, {"question_id": 2, "answer": "x"}], "result 0 (question_id 1)"),
        ([{"question_id": 1, "answer": None}], "result 0 (question_id 1)"),
        ([{"question_id": 1}], "'answer'"),
        ([{"answer": "cat"}], "'question_id'"),
        ([{"question_id": True, "answer": "cat"}], "question_id is True"),
        ([{"question_id": 1.0, "answer": "cat"}], "question_id is 1.0"),
        (["cat"], "result 0"),
        ({"1": "cat"}, "a result file is a list"),
    ],
)
def test_wrong_results_are_one_message_and_no_output(
    results: Any, message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(small / "results.json", results)
    out = small / "out.json"
    assert main([*arguments(small), "--json", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"coattn: error: {small / 'results.json'}: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", ["results.json", "questions.json", "annotations.json"])
def test_a_missing_truncated_or_swapped_file_is_named(
    name: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small / name
    original = path.read_bytes()
    others = [other for other in ("results.json", "questions.json", "annotations.json") if other != name]
    path.write_bytes(original[:-3])
    assert main(arguments(small)) == 2
    assert f"{path}: not valid JSON" in capsys.readouterr().err
    for other in others:
        shutil.copy(small / other, path)
        assert main(arguments(small)) == 2
        assert str(path) in capsys.readouterr().err
    path.unlink()
    assert main(arguments(small)) == 2
    assert capsys.readouterr().err == f"coattn: error: {path}: No such file or directory\n"


def test_unknown_metric_or_option_ends_with_status_two(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--metric", "wups"], ["--ques", "q.json"]):
        with pytest.raises(SystemExit) as exit_info:
            main([*arguments(small), *wrong])
        assert exit_info.value.code == 2
        assert wrong[-1] in capsys.readouterr().err
