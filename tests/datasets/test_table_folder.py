"""A folder as a table: files per split, and what the library `datasets` saves (tried where it is installed)."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path

import pytest
from PIL import Image

from coattn.cli import main
from coattn.datasets.table import read_table
from coattn.datasets.vqa_json import read_vqa


def row(image: str, answer: str = "red") -> dict[str, str]:
    return {"image": image, "question": "What colour?", "answer": answer}


def write_lines(path: Path, *rows: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(cells) + "\n" for cells in rows))


def test_a_file_per_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "train-00000-of-00002.jsonl", row("a"), row("b"))
    write_lines(tmp_path / "train-00001-of-00002.jsonl", row("c"))
    write_lines(tmp_path / "dataset_infos.json")
    (tmp_path / "validation.csv").write_text("image,question,answer\nd,Which?,blue\n")
    write_lines(tmp_path / "test" / "metadata.jsonl", row("e"))
    table = read_table(tmp_path)
    assert {split: [record.image_id for record in records] for split, records in table.splits.items()} == {
        "train": ["a", "b", "c"],
        "val": ["d"],
        "test": ["e"],
    }
    assert table.source == str(tmp_path)


def test_files_that_name_no_split_are_divided_by_image(tmp_path: Path) -> None:
    write_lines(tmp_path / "questions.jsonl", *(row(str(number)) for number in range(20)))
    assert {split: len(records) for split, records in read_table(tmp_path).splits.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", row("a"), row("b", answer=""))
    with pytest.raises(ValueError, match=r"train\.jsonl: line 2: the answer is empty"):
        read_table(tmp_path)
    (tmp_path / "train.jsonl").rename(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"holds no table .*of train\.parquet make one"):
        read_table(tmp_path)


def test_saved_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["prepare", "table", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "was saved by the package datasets, which reads it: pip install datasets" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_saved_with_images(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets", reason="the package datasets is not installed")
    if not hasattr(library, "load_from_disk"):
        pytest.skip("the package datasets is not installed")
    content = []
    for colour in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (5, 4), colour).save(file, "PNG")
        content.append({"bytes": file.getvalue(), "path": None})
    features = library.Features(
        {
            "image": library.Image(),
            "question": library.Value("string"),
            "answers": [{"answer": library.Value("string"), "answer_confidence": library.Value("string")}],
            "answer": library.ClassLabel(names=["red", "blue"]),
            "tags": library.Sequence(library.ClassLabel(names=["cat", "dog"])),
        }
    )
    people = [{"answer": text, "answer_confidence": "yes"} for text in ("red", "red", "pink")]
    try:
        splits = {
            split: library.Dataset.from_dict(
                {
                    "image": images,
                    "question": ["Which?"] * len(images),
                    "answers": [people] * len(images),
                    "answer": [0] * len(images),
                    "tags": [[1, 0]] * len(images),
                },
                features=features,
            )
            for split, images in (("train", [content[0], content[1], content[0]]), ("validation", [content[1]]))
        }
    except pickle.PicklingError:  # 5.2.0 cannot name its own data sets; it reads those of others
        pytest.skip("this version of datasets makes no data sets")
    library.DatasetDict(splits).save_to_disk(str(tmp_path / "in"))
    assert main(["prepare", "table", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    train = read_vqa(tmp_path / "out/train_questions.json", tmp_path / "out/train_annotations.json").records
    val = read_vqa(tmp_path / "out/val_questions.json", tmp_path / "out/val_annotations.json").records
    assert [record.answers for record in train] == [("red", "red", "pink")] * 3
    assert [record.multiple_choice_answer for record in train] == ["red"] * 3
    assert train[0].extra["tags"] == ["dog", "cat"]
    assert train[0].image_id == train[2].image_id
    assert train[1].image_id == val[0].image_id
    places = json.loads((tmp_path / "out" / "images.json").read_text())
    assert len(places) == 2
    with Image.open(tmp_path / "out" / places[str(train[0].image_id)]) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)

    (arrow,) = (tmp_path / "in" / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a whole saved data set"):
        read_table(tmp_path / "in")
