"""The web page of `coattn browse`."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import outcome, script
from PIL import Image

from coattn.cli import main
from coattn.datasets.doubt import Doubt
from coattn.datasets.records import Record
from coattn.datasets.results import Results, write_results
from coattn.datasets.vqa_json import write_vqa
from coattn.explain.answers import Answers
from coattn.explain.maps import Attribution, Explanation
from coattn.metrics.score import score
from coattn.visualization.browse import write_page


def make(count: int) -> tuple[list[Record], Results]:
    """Questions on images of three, and answers of which every fourth is wrong."""
    records = [
        Record(
            number,
            f"photo/{number // 3}",
            f"what is number {number}?</script>" if number == 1 else f"what is number {number}?",
            ("even" if number % 2 == 0 else "odd",),
            question_type="what" if number % 5 else "which",
        )
        for number in range(count)
    ]
    answers = {r.question_id: "other" if number % 4 == 3 else r.answer for number, r in enumerate(records)}
    return records, Results(answers, {r.question_id: 0.5 + 0.5 / (1 + number) for number, r in enumerate(records)})


def read(path: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def test_the_data_of_the_page_are_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, results = make(24)
    write_vqa(tmp_path, "test", records, info={"metric": "exact_match"})
    write_vqa(tmp_path, "train", [Record(7, "photo/1", "What is number 20", ("even",))], info={"metric": "exact_match"})
    doubts = {record.question_id: Doubt() for record in records}
    doubts[records[5].question_id] = Doubt(True, ("The image is odd.", "So is the word."), ("number",))
    results = replace(results, doubts=doubts)
    write_results(tmp_path / "test.json", results, records)
    (tmp_path / "photo").mkdir()
    for number in range(8):
        Image.new("RGB", (400, 200), (20 * number, 90, 90)).save(tmp_path / "photo" / f"{number}.png")
    (tmp_path / "images.json").write_text(json.dumps({f"photo/{n}": f"photo/{n}.png" for n in range(8)}))
    command = ["browse", str(tmp_path / "test.json"), "--questions", str(tmp_path / "test_questions.json")]
    command += ["--annotations", str(tmp_path / "test_annotations.json"), "--images", str(tmp_path / "images.json")]
    out = tmp_path / "report.html"
    assert main([*command, "--train-questions", str(tmp_path / "train_questions.json"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("</script>") == 2  # the question that contains one does not end the data

    data, scores = read(out), score(results, records, "exact_match")
    assert data["overall"] == scores.overall == 75.0
    assert {str(row[0]): 100 * row[5] for row in data["rows"]} == scores.by_question
    row = data["rows"][5]
    assert row[:2] == [5, 1]
    assert data["images"][row[1]] == "photo/1"
    assert row[2:6] == ["what is number 5?", "odd", "odd", 1.0]
    assert row[6] == pytest.approx(0.5833, abs=1e-4)
    assert data["types"][row[7]] == "which"
    assert row[8] == 1  # its image is in training
    assert data["rows"][20][8] == 2  # its question is
    assert data["reasons"][row[9]] == "The image is odd. So is the word."
    assert [number for number, each in enumerate(data["rows"]) if each[9] >= 0] == [5]
    assert [number for number, each in enumerate(data["rows"]) if each[10]] == [5]
    mistaken = {data["rows"][number][1] for number in range(3, 24, 4)}
    assert set(map(int, data["pictures"])) == mistaken
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in data["pictures"].values())

    capsys.readouterr()
    (tmp_path / "photo" / "1.png").write_bytes(b"no image")
    for changed, message in (
        (["--out", str(tmp_path / "report.pdf")], "the name must end in .html"),
        (["--out", str(out), "--metric", "exact"], "unknown metric 'exact'"),
        (["--out", str(out), "--features", "features"], "give --model too"),
        (["--out", str(out), "--model", str(tmp_path)], "not a model directory"),
        (["--out", str(tmp_path / "new.html")], "1.png: not an image in one of the formats"),
    ):
        assert main([*command, *changed]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new.html").exists()


def explained(record: Record, answer: str) -> Explanation:
    """An explanation of an answer by the left half of a gray image."""
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    found = Attribution("dependence", answer, np.array([3.0, -1.0]), np.zeros(0), True, 6)
    gray = Image.new("RGB", (40, 20), (120, 120, 120))
    return Explanation(record.question, (), boxes, gray, gray.size, {}, Answers(), attribution=found)


def test_maps_are_those_of_the_mistakes_that_are_shown_first(tmp_path: Path) -> None:
    records, results = make(400)

    def explain(record: Record) -> Explanation | None:
        # The model gives another answer to question 7, and the image of question 11 is not at hand.
        return None if record.question_id == 11 else explained(record, "odd" if record.question_id == 7 else "other")

    path = tmp_path / "report.html"
    write_page(path, results, records, "exact_match", title="maps", explain=explain)
    data = read(path)
    # Of 100 mistakes, questions 3, 7, ... 399, the first are the surest; every image has one mistake at most but these.
    assert data["explained"]
    assert list(map(int, data["maps"])) == [number for number in range(3, 240, 4) if number not in (7, 11)]
    content = base64.b64decode(data["maps"]["3"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (176, 88)
        left, right = (picture.convert("RGB").getpixel((x, 44)) for x in (20, 156))
    assert left[0] > left[2] + 50  # red speaks for the answer
    assert right[2] > right[0] + 20

    with pytest.raises(ValueError, match=r"\(question '\d+': 'other' in the results, 'red' by the model\)"):
        write_page(path, results, records, "exact_match", title="maps", explain=lambda each: explained(each, "red"))


def test_a_single_other_answer_of_the_model_is_taken_for_a_tie(tmp_path: Path) -> None:
    records, results = make(4)  # question 3 is the only mistake
    path = tmp_path / "report.html"
    write_page(path, results, records, "exact_match", title="tie", explain=lambda each: explained(each, "red"))
    assert read(path)["maps"] == {}


def test_ten_thousand_questions_are_a_small_page(tmp_path: Path) -> None:
    records, results = make(10_000)
    write_page(tmp_path / "report.html", results, records, "exact_match", title="large")
    assert (tmp_path / "report.html").stat().st_size < 8_000_000
    assert len(read(tmp_path / "report.html")["rows"]) == 10_000


def test_results_without_confidences_have_no_curves(tmp_path: Path) -> None:
    records, results = make(4)
    write_page(tmp_path / "report.html", Results(results.answers), records, "exact_match", title="plain")
    assert [row[6] for row in read(tmp_path / "report.html")["rows"]] == [None] * 4


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    records, results = make(24)
    write_page(tmp_path / "report.html", results, records, "exact_match", title="results")
    steps = """
      const rows = () => $("rows").children.length;
      outcome.title = $("title").textContent; outcome.all = rows();
      const filter = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("input", { bubbles: true }));
        return new Promise((done) => setTimeout(done, 1000)); };
      await filter("correct", "wrong"); outcome.wrong = rows();
      await filter("text", "number 11"); outcome.found = rows();
      $("reset").click(); outcome.again = rows();
      const pair = document.querySelector(".pair"); pair.focus(); pair.click();
      outcome.confused = rows(); outcome.focused = document.activeElement.className;
      outcome.fits = document.documentElement.scrollWidth <= innerWidth;
    """
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "used.html").write_text(page.replace("</body>", f"{script(steps)}</body>"), encoding="utf-8")
    found = outcome((tmp_path / "used.html").as_uri(), tmp_path / "profile")
    assert found == {
        "title": "results",
        "all": 24,
        "wrong": 6,
        "found": 1,
        "again": 24,
        "confused": 6,
        "focused": "pair",
        "fits": True,
        "outside": [],
    }

    write_page(tmp_path / "plain.html", Results(results.answers), records, "exact_match", title="plain")
    steps = """
      const shown = (row) => [...row.children].filter((cell) => cell.style.display !== "none").length;
      outcome.columns = [shown(document.querySelector("thead tr")), shown($("rows").firstChild)];
    """
    page = (tmp_path / "plain.html").read_text(encoding="utf-8")
    (tmp_path / "used.html").write_text(page.replace("</body>", f"{script(steps)}</body>"), encoding="utf-8")
    assert outcome((tmp_path / "used.html").as_uri(), tmp_path / "profile") == {"columns": [7, 7], "outside": []}
