"""`coattn prepare` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from coattn.cli import main
from coattn.datasets.vqa_json import read_vqa

TABLE = 'scan,question,finding\ns0,Where is it?,"left lung, lower lobe"\n' + "".join(
    f"s{n},Is it normal?,{'yes' if n % 2 else 'No'}\n" for n in range(1, 20)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for n in range(20):
        Image.new("L", (4, 4)).save(tmp_path / "scans" / f"s{n}.png")
    (tmp_path / "my.csv").write_text(TABLE)
    return tmp_path


def prepare(folder: Path, *arguments: str) -> int:
    return main(["prepare", "table", f"{folder}/my.csv", "--images", f"{folder}/scans", f"{folder}/out", *arguments])


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(folder, "--column", "image=scan", "--column", "answer=finding") == 0
    printed = capsys.readouterr().out
    assert "train: 16 questions on 16 images" in printed
    records = []
    for split in ("train", "val", "test"):
        data = read_vqa(folder / f"out/{split}_questions.json", folder / f"out/{split}_annotations.json")
        records += data.records
    assert len(records) == 20
    assert {record.answer for record in records} == {"left lung, lower lobe", "yes", "No"}
    images = json.loads((folder / "out/images.json").read_text())
    assert all((folder / "out" / images[str(record.image_id)]).is_file() for record in records)


def test_errors_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("coattn: error: ")
    assert error.count("\n") == 1
    assert "the table has 'scan', 'question', 'finding'" in error
    assert prepare(folder, "--column", "scan") == 2
    assert "write FIELD=NAME" in capsys.readouterr().err
    assert main(["prepare", "table", f"{folder}/none.csv", f"{folder}/out"]) == 2
    assert "none.csv: No such file" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_easy_vqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("easy_vqa", reason="the package easy-vqa is not installed")
    assert main(["prepare", "easy-vqa", f"{tmp_path}/easy"]) == 0
    assert "val: 3899 questions on 400 images" in capsys.readouterr().out
    images = json.loads((tmp_path / "easy/images.json").read_text())
    assert images["test/12"] == "images/test/12.png"
    assert Image.open(tmp_path / "easy" / images["train/0"]).size == (64, 64)
