"""The prepared folder: complete or absent, never over something else, and its report true."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coattn.datasets import prepared
from coattn.datasets.prepared import Dataset, write_dataset
from coattn.datasets.records import Record
from coattn.datasets.report import build_report, format_report
from coattn.datasets.vqa_json import read_vqa
from coattn.visualization.report import draw_report


def dataset(**changes: Any) -> Dataset:
    record = Record(1, "a", "What?", ("x",), "other", "what", "train")
    splits = {"train": [record], "val": [replace(record, image_id="b", split="val")]}
    return replace(Dataset(name="table", source="/my.csv", splits=splits, metric="exact_match"), **changes)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in "ab":
        (tmp_path / "scans" / name).with_suffix(".png").write_bytes(b"picture " + name.encode())
    images = {name: tmp_path / "scans" / f"{name}.png" for name in "ab"}
    out = tmp_path / "out"
    report = write_dataset(dataset(images=images), out)
    data = read_vqa(out / "val_questions.json", out / "val_annotations.json", split="val")
    assert data.records == [replace(record, multiple_choice_answer="x") for record in dataset().splits["val"]]
    assert data.metric == data.info["metric"] == "exact_match"
    assert json.loads((out / "images.json").read_text()) == {"a": "../scans/a.png", "b": "../scans/b.png"}
    assert json.loads((out / "report.json").read_text()) == report
    assert sorted(content(out)) == sorted(report["files"])

    far = tmp_path / "elsewhere" / "out"
    write_dataset(dataset(images=images), far)
    assert json.loads((far / "images.json").read_text())["a"] == str(images["a"])
    copied = tmp_path / "elsewhere" / "copied"
    write_dataset(dataset(images=images, copy_images=True), copied)
    assert json.loads((copied / "images.json").read_text())["a"] == "images/a.png"
    assert (copied / "images/a.png").read_bytes() == b"picture a"


@pytest.mark.parametrize("image_id", ["../../../evil", "a/../../evil", "/evil", "..\\evil"])
def test_copies_stay_in_the_folder(tmp_path: Path, image_id: str) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    out = tmp_path / "far" / "below" / "out"
    with pytest.raises(ValueError, match=r"/my\.csv: image id .*evil' \(file .*a\.png\).* must not lead out"):
        write_dataset(dataset(images={image_id: tmp_path / "a.png"}, copy_images=True), out)
    assert sorted(content(tmp_path)) == ["a.png"]


@pytest.mark.parametrize(
    ("place", "value", "words"), [(40, 255, "the zip archive is damaged"), (6, 1, "cannot be read from the zip")]
)
def test_a_damaged_image_in_an_archive_is_named(tmp_path: Path, place: int, value: int, words: str) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(range(256)) * 4)
    damaged = bytearray((tmp_path / "images.zip").read_bytes())
    damaged[place] |= value
    if words.startswith("cannot"):  # encrypted, says the directory too
        damaged[damaged.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "images.zip").write_bytes(damaged)
    images = {"a": zipfile.Path(tmp_path / "images.zip") / "a.png"}
    with pytest.raises(ValueError, match=rf"images\.zip/a\.png: {words}"):
        write_dataset(dataset(images=images, copy_images=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_again_gives_the_same_and_keeps_what_is_not_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(dataset(), out)
    first = content(out)
    (out / "features.h5").write_text("the user's own")
    write_dataset(dataset(), out)
    assert content(out) == {**first, "features.h5": b"the user's own"}
    only_train = {"train": dataset().splits["train"]}
    write_dataset(dataset(splits=only_train), out)
    kept = {"train_questions.json", "train_annotations.json", "report.json", "features.h5"}
    assert set(content(out)) == kept


def test_something_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(dataset(), out)
    before = content(out)
    with pytest.raises(ValueError, match=r"out holds table prepared from /my.csv, not table from /other.csv"):
        write_dataset(dataset(source="/other.csv"), out)
    assert content(out) == before
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("")
    for name in ("file", "folder"):
        with pytest.raises(ValueError, match=f"{name} exists and was not made by coattn prepare"):
            write_dataset(dataset(), tmp_path / name)
    (tmp_path / "folder" / "thesis.txt").unlink()
    write_dataset(dataset(), tmp_path / "folder")  # empty by now


def test_nothing_is_left_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> dict[str, Any]:
        raise OSError("no space left")

    monkeypatch.setattr(prepared, "build_report", full)
    with pytest.raises(OSError, match="no space left"):
        write_dataset(dataset(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"split '\.\./x': its name becomes part of a file name"):
        write_dataset(dataset(splits={"../x": []}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def records(*rows: tuple[str, str, str, Sequence[str]]) -> list[Record]:
    return [
        Record(number, image, question, tuple(answers), question_type=kind)
        for number, (image, kind, question, answers) in enumerate(rows)
    ]


def test_report_counts_and_scores() -> None:
    splits = {
        "train": records(
            ("a", "is", "Is it?", ["yes"]),
            ("a", "is", "Is it?", ["Yes."]),
            ("b", "is", "Is it not?", ["no"]),
            ("b", "what", "What is it in the end?", ["cat"]),
        ),
        "test": records(
            ("b", "is", "Is it?", ["yes"]),
            ("c", "is", "is it not", ["no"]),
            ("c", "what", "What now?", ["cat"]),
            ("c", "what", "What then?", ["dog"]),
        ),
    }
    report = build_report(splits, "exact_match")
    train, test = report["splits"]["train"], report["splits"]["test"]
    assert (train["questions"], train["images"], train["answers"], train["answers_as_typed"]) == (4, 2, 3, 4)
    assert train["repeated_questions"] == 1
    assert train["longest_question"] == {"words": 6, "question_id": 3, "text": "What is it in the end?"}
    assert train["question_types"] == {"is": 3, "what": 1}
    assert report["shared_images"] == {"train, test": 1}
    assert test["coverage"] == {"3": 75.0}
    assert test["prior"] == {"constant": 25.0, "per question type": 50.0, "per question text": 50.0}
    text = format_report(
        {
            "prepared": "x",
            "metric": "exact_match",
            "notes": ["n"],
            "skipped": ["s"],
            "skipped_reasons": {"s": 1},
            **report,
        }
    )
    for words in ("test: 4 questions on 2 images", "warning: 1 of 2 test images are also in train", "note: n", "  s"):
        assert words in text


def test_report_of_soft_scores_and_of_unknown_answers() -> None:
    train = records(("a", "", "What is it?", ["cat"] * 2 + ["dog"] * 7 + [""]))
    test = records(("b", "", "What is that?", ["dog"] * 2 + ["cat"] * 8), ("b", "", "Where is that?", ["x"] * 10))
    report = build_report({"train": train, "val": test, "test": records(("b", "", "What?", []))}, "vqa_accuracy")
    assert report["splits"]["val"]["coverage"] == {"1": 30.0}
    assert report["splits"]["val"]["prior"]["per question type"] == 30.0
    assert "coverage" not in report["splits"]["test"]
    text = format_report({"prepared": "x", "metric": "vqa_accuracy", **report})
    assert "most frequent     dog 7, cat 2, (empty) 1" in text


def test_coverage_by_vocabulary_size() -> None:
    train = records(*[("a", "", "q", [f"answer {n}"]) for n in range(150) for _ in range(2 if n < 100 else 1)])
    coverage = build_report({"train": train}, "exact_match")["splits"]["train"]["coverage"]
    assert coverage == {"100": 80.0, "150": 100.0}


def test_report_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert "report.png" in write_dataset(dataset(), out, draw=draw_report)["files"]
    with Image.open(out / "report.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    unanswered = {"test": [replace(record, answers=()) for record in dataset().splits["val"]]}
    assert "report.png" in write_dataset(dataset(splits=unanswered), tmp_path / "unanswered", draw=draw_report)["files"]

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    report = write_dataset(dataset(), out, draw=draw_report)
    assert report["notes"] == ["no report.png: this needs the package matplotlib: pip install 'coattn[plot]'"]
    assert not (out / "report.png").exists()


def test_images_without_features(tmp_path: Path) -> None:
    report = write_dataset(dataset(), tmp_path / "out", has_features={"a"}.__contains__)
    assert report["splits"]["train"]["images_without_features"] == {"count": 0, "first": []}
    assert report["splits"]["val"]["images_without_features"] == {"count": 1, "first": ["b"]}
    assert "1 of 1 images have no features, for example b" in format_report(report)
