from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coattn.cli import main
from coattn.metrics.scores import MAX_ROWS

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
    assert {"metric", "overall", "by_answer_type", "by_question_type", "by_question"} <= set(scores)
    assert scores["metric"] == "vqa_accuracy"
    assert scores["overall"] == expected["overall"]
    assert scores["by_question"] == expected["accuracy_by_question"]
    assert scores["by_answer_type"] == expected.get("by_answer_type", scores["by_answer_type"])
    printed = capsys.readouterr().out
    assert f"vqa_accuracy {len(scores['by_question'])} {expected['overall']:.2f}" in " ".join(printed.split())
    kinds = scores["by_question_type"]
    assert sum(f"\n{name}  " in printed for name in kinds) == min(len(kinds), MAX_ROWS)


@pytest.mark.parametrize("name", ["questions.json", "annotations.json", "results.json"])
def test_an_input_is_not_replaced(name: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (small / name).read_bytes()
    for option in ("--json", "--plot"):
        assert main([*arguments(small), option, str(small / name)]) == 2
        assert f"{option} {small / name} would replace a file" in capsys.readouterr().err
    assert (small / name).read_bytes() == before


def test_metric_follows_the_data_and_can_be_overridden(small: Path) -> None:
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
        ({"1": "cat"}, "1 of 2 questions have no result"),
        ({"1": ["cat"]}, "a result file is a list"),
        ({"1": {"answer": "cat"}}, "must be a text or an object with direct_answer or multiple_choice"),
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
    for wrong in (["--metric", "wup"], ["--ques", "q.json"]):
        assert main([*arguments(small), *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err


def scored(folder: Path, *options: Any) -> dict[str, Any]:
    """The file that `coattn score` writes for the files of a folder."""
    assert main([*arguments(folder), *map(str, options), "--json", str(folder / "out.json")]) == 0
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """40 questions on 10 images, results with confidences, and better ones in `other.json`."""
    questions = [{"question_id": i, "image_id": i % 10, "question": "what?"} for i in range(40)]
    annotations = [
        {"question_id": i, "image_id": i % 10, "answers": [{"answer": "cat"}], "answer_type": "other"}
        for i in range(40)
    ]
    write(tmp_path / "questions.json", {"questions": questions})
    write(tmp_path / "annotations.json", {"annotations": annotations})
    answers = ["cat" if i % 3 else "dog" for i in range(40)]
    results = [{"question_id": i, "answer": answers[i], "confidence": 0.9 if i % 3 else 0.4} for i in range(40)]
    write(tmp_path / "results.json", results)
    write(tmp_path / "other.json", [{"question_id": i, "answer": "cat"} for i in range(40)])
    return tmp_path


def test_intervals_confidences_and_thresholds(larger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = scored(larger, "--samples", 200)
    assert scores["overall"] == 65
    low, high = scores["numbers"]["all questions"]["exact_match"]["interval"]
    assert low < 65 < high
    numbers = scores["numbers"]["other numbers"]
    assert numbers["expected calibration error"]["value"] == round(100 * (26 * 0.1 + 14 * 0.4) / 40, 2)
    assert numbers["coverage at 1 % risk"]["value"] == 65
    assert scores["thresholds"] == {"1": 0.9, "10": 0.9, "100": 0.9}
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "note: the thresholds of effective reliability were chosen on these questions" in printed

    shutil.copy(larger / "out.json", larger / "val.json")
    val = json.loads((larger / "val.json").read_text())
    write(larger / "val.json", val | {"thresholds": {"1": 0.3, "100": None}})
    scores = scored(larger, "--samples", 0, "--thresholds", larger / "val.json")
    assert scores["numbers"]["other numbers"]["effective reliability at cost 1"]["value"] == 30  # (26 - 14) / 40
    assert scores["numbers"]["other numbers"]["effective reliability at cost 100"]["value"] == 0
    assert "interval" not in scores["numbers"]["all questions"]["exact_match"]
    assert "chosen on these" not in capsys.readouterr().out
    assert main([*arguments(larger), "--thresholds", str(larger / "questions.json")]) == 2
    assert "questions.json: has no thresholds" in capsys.readouterr().err


def test_against_another_file(larger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = scored(larger, "--against", larger / "other.json", "--samples", 100)
    difference = scores["against"]["differences"]["exact_match"]
    assert difference["value"] == -35
    assert difference["low"] < -35 < difference["high"]
    assert difference["p_value"] == pytest.approx(2 / 2**10, abs=0.002)  # all ten images are worse
    assert "exact_match      -35.00" in capsys.readouterr().out
    write(larger / "other.json", [{"question_id": 1, "answer": "cat"}])
    assert main([*arguments(larger), "--against", str(larger / "other.json")]) == 2
    assert f"{larger / 'other.json'}: 39 of 40 questions have no result" in capsys.readouterr().err


def test_picture(larger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    scored(larger, "--samples", 0, "--plot", larger / "p.png")
    with Image.open(larger / "p.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    assert main([*arguments(larger), "--plot", str(larger / "p.docx")]) == 2
    assert "a picture cannot end in .docx" in capsys.readouterr().err
    assert main([*arguments(larger / "none"), "--plot", str(larger / "p.docx")]) == 2
    assert "a picture cannot end in .docx" in capsys.readouterr().err  # said before anything is read
    shutil.copy(larger / "other.json", larger / "results.json")
    assert main([*arguments(larger), "--plot", str(larger / "q.png")]) == 2
    assert 'results.json: has no "confidence"' in capsys.readouterr().err
    assert not (larger / "q.png").exists()


def test_gqa_with_choices(larger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = {"valid": ["cat", "dog"], "plausible": ["cat"]}
    write(larger / "choices.json", {str(i): lists for i in range(40)})
    scores = scored(larger, "--metric", "gqa", "--choices", larger / "choices.json", "--samples", 0)
    assert {name: scores["numbers"]["other numbers"][name]["value"] for name in ("validity", "plausibility")} == {
        "validity": 100,
        "plausibility": 65,
    }
    write(larger / "choices.json", [1])
    assert main([*arguments(larger), "--metric", "gqa", "--choices", str(larger / "choices.json")]) == 2
    assert "choices.json: must be an object; this is a list" in capsys.readouterr().err


def test_help_says_what_each_metric_is(capsys: pytest.CaptureFixture[str]) -> None:
    from coattn.metrics.score import METRICS

    with pytest.raises(SystemExit):
        main(["score", "--help"])
    printed = capsys.readouterr().out
    for name in METRICS:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 3


def test_nan_confidence_is_named(larger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (larger / "results.json").read_text()
    (larger / "results.json").write_text(text.replace("0.4", "NaN", 1))
    assert main(arguments(larger)) == 2
    error = capsys.readouterr().err
    assert (
        error == f"coattn: error: {larger / 'results.json'}: result 0 (question_id 0): confidence is nan, must be a "
        "number in [0, 1]\n"
    )


def test_by_column_by_what_training_saw_and_answers_without_ids(
    larger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = json.loads((larger / "questions.json").read_text())["questions"]
    for question in questions:
        question["organ"] = "liver" if question["question_id"] % 2 else "lung"
    write(larger / "questions.json", {"questions": questions})
    annotations = json.loads((larger / "annotations.json").read_text())["annotations"]
    for annotation in annotations:
        annotation["answers"] = [{"answer": "cat"}] * 10
    write(larger / "annotations.json", {"annotations": annotations})
    write(larger / "train.json", {"questions": [questions[0] | {"question_id": 99}]})
    scores = scored(larger, "--by", "organ", "--train-questions", larger / "train.json", "--samples", 50)
    assert (scores["metric"], scores["overall"]) == ("vqa_accuracy", 65)
    assert {name: number["questions"] for name, number in scores["numbers"]["organ"].items()} == {
        "liver": 20,
        "lung": 20,
    }
    assert scores["numbers"]["image in training"]["seen"]["interval"][1] < 100  # Wilson, of one image
    assert any("40 of 40 annotations have answers without answer_id" in note for note in scores["notes"])
    printed = capsys.readouterr().out
    assert "\norgan " in printed
    assert "\nnote: 40 of 40 annotations" in printed
    assert main([*arguments(larger), "--by", "organs"]) == 2
    assert "no question has a column 'organs'; did you mean 'organ'?" in capsys.readouterr().err
