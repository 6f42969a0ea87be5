"""Sort-of-CLEVR from its files: a tiny folder of that form, and the real one where it is."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from coattn.cli import main
from coattn.datasets.sort_of_clevr import read_sort_of_clevr
from coattn.datasets.vqa_json import read_vqa

ROWS = [
    {"image": "00000.png", "question": "what is the shape of the red object ?", "answer": "circle", "type": "nonrel"},
    {"image": "00001.png", "question": "how many ... ?", "answer": "3", "type": "binary", "subtype": 2},
    {"image": "00000.png", "question": "is there any ... ?", "answer": "no", "type": "ternary", "subtype": 1},
]


def write_questions(folder: Path, split: str, rows: list[dict]) -> Path:
    path = folder / f"sort_of_clevr_{split}.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "generated"
    folder.mkdir()
    for split, count in (("train", 50), ("test", 2)):
        write_questions(folder, split, [row | {"image": f"{n:05}.png"} for n in range(count) for row in ROWS])
        with zipfile.ZipFile(folder / f"sort_of_clevr_{split}_images.zip", "w") as archive:
            for number in range(count):
                png = io.BytesIO()
                Image.new("RGB", (5, 4), (number, 0, split == "test")).save(png, "PNG")
                archive.writestr(f"{number:05}.png", png.getvalue())
    return folder


def test_questions_become_records(folder: Path) -> None:
    first = read_sort_of_clevr(folder).splits["test"][:3]
    assert [(record.question_id, record.image_id) for record in first] == [
        (f"test/{n}", "test/00000") for n in range(3)
    ]
    assert [record.question for record in first] == [row["question"] for row in ROWS]
    assert [record.answers for record in first] == [("circle",), ("3",), ("no",)]
    assert [record.question_type for record in first] == ["non-relational", "binary", "ternary"]
    assert [record.answer_type for record in first] == ["shape", "number", "yes/no"]


def test_validation_is_held_out_by_image(folder: Path) -> None:
    splits = read_sort_of_clevr(folder).splits
    images = {name: {record.image_id for record in records} for name, records in splits.items()}
    assert [len(images[name]) for name in ("train", "val", "test")] == [48, 2, 2]
    assert not images["train"] & images["val"]
    assert all(record.split == name for name, records in splits.items() for record in records)


def test_prepare_unpacks_the_images(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    assert main(["prepare", "sort-of-clevr", str(folder), str(out)]) == 0
    places = json.loads((out / "images.json").read_text())
    assert len(places) == 52
    with Image.open(out / places["train/00007"]) as image:
        assert image.getpixel((0, 0)) == (7, 0, 0)
    with Image.open(out / places["test/00001"]) as image:
        assert image.getpixel((0, 0)) == (1, 0, 1)
    prepared = read_vqa(out / "val_questions.json", out / "val_annotations.json")
    assert prepared.metric == "exact_match"
    assert len(prepared.records) == 6


def test_an_archive_of_all_files_gives_the_same(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    packed, plain = read_sort_of_clevr(tmp_path / "all.zip"), read_sort_of_clevr(folder)
    assert packed.splits == plain.splits
    assert all(packed.images[name].read_bytes() == file.read_bytes() for name, file in plain.images.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "00099.png"}, r"line 2: the image '00099.png' is not in the archive of images"),
        ({"type": "quaternary"}, "line 2: the type 'quaternary' is not one of nonrel, binary, ternary"),
        ({"answer": 3}, r"line 2: answer is 3 \(a number\), must be text"),
    ],
)
def test_defects_are_named(change: dict, message: str, folder: Path) -> None:
    write_questions(folder, "train", [ROWS[0], ROWS[1] | change])
    with pytest.raises(ValueError, match=message):
        read_sort_of_clevr(folder)


def test_damaged_files_are_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions, images = (folder / f"sort_of_clevr_train{end}" for end in (".jsonl.gz", "_images.zip"))
    whole = questions.read_bytes()
    for damaged in (whole[:-20], b"no gzip", gzip.compress(b"{"), gzip.compress(b"\xff")):
        questions.write_bytes(damaged)
        assert main(["prepare", "sort-of-clevr", str(folder), str(tmp_path / "out")]) == 2
        assert "sort_of_clevr_train.jsonl.gz" in capsys.readouterr().err
    questions.write_bytes(whole)
    images.write_bytes(b"no zip")
    assert main(["prepare", "sort-of-clevr", str(folder), str(tmp_path / "out")]) == 2
    assert "sort_of_clevr_train_images.zip: not a whole zip archive" in capsys.readouterr().err
    images.unlink()
    assert main(["prepare", "sort-of-clevr", str(folder), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_the_real_files(shared_data: Path) -> None:
    splits = read_sort_of_clevr(shared_data / "sort_of_clevr").splits
    assert {name: len(records) for name, records in splits.items()} == {"train": 282240, "val": 11760, "test": 6000}
    types = ("non-relational", "binary", "ternary")
    assert Counter(record.question_type for record in splits["test"]) == dict.fromkeys(types, 2000)
