"""A folder as a table: files per split, and Parquet and Arrow (where pyarrow is installed)."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

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
    (tmp_path / "train.jsonl").rename(tmp_path / "train.xlsx")
    with pytest.raises(ValueError, match="holds no table"):
        read_table(tmp_path)


def test_parquet_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["prepare", "table", str(tmp_path / "train.parquet"), str(tmp_path / "out")]) == 2
    assert "pip install 'coattn[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00002.jsonl").write_text('{"image": "a", "question": "q", "answer": "x"}')
    with pytest.raises(ValueError, match="train-00000-of-00002: 1 of 2 parts of this table are there"):
        read_table(tmp_path)


def tables(pyarrow: Any) -> dict[str, Any]:
    """Split to a table as the library `datasets` of Hugging Face describes and stores it."""
    content = []
    for color in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (5, 4), color).save(file, "PNG")
        content.append({"bytes": file.getvalue(), "path": None})
    features = {
        "image": {"_type": "Image"},
        "answer": {"names": ["red", "blue"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"},
    }
    people = [{"answer": text, "answer_confidence": "yes"} for text in ("red", "red", "pink")]
    made = {}
    for split, images in (("train", [content[0], content[1], content[0]]), ("validation", [content[1]])):
        rows = [
            {"image": image, "question": f"Which {n}?", "answers": people, "answer": 0, "tags": [1, 0]}
            for n, image in enumerate(images)
        ]
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        made[split] = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
    return made


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_images_in_parquet_and_arrow(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    from pyarrow import parquet

    for split, made in tables(pyarrow).items():
        folder = tmp_path / "in" / (split if kind == "arrow" else "data")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ("data-00000-of-00001.arrow" if kind == "arrow" else f"{split}-00000-of-00001.parquet")
        if kind == "parquet":
            parquet.write_table(made, path, row_group_size=2)
            continue
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, made.schema) as writer:
            writer.write_table(made)
    (tmp_path / "in" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
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

    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a whole Parquet or Arrow file"):
        read_table(tmp_path / "in")
