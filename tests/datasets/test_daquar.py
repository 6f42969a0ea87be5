"""DAQUAR from the authors' files: a tiny folder of that form, and the real one where it is."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from coattn.cli import main
from coattn.datasets.daquar import read_daquar
from coattn.datasets.vqa_json import read_vqa

PAIRS = """\
what is on the left of the image10 behind the door in the image10 ?
chair
how many red chairs are on the right side of the image11 ?
2
what colour is the wall in this image1 ?
light_blue, white
what is on the table in the image2 ?
cup
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "authors"
    (folder / "images").mkdir(parents=True)
    for name in ("image1.png", "image2.jpg", "image10.jpg", "image11.jpg", "image12.jpg"):
        Image.new("RGB", (8, 6)).save(folder / "images" / name)
    (folder / "all_qa_pairs.txt").write_text(PAIRS)
    (folder / "train_images_list.txt").write_text("image2\nimage10\nimage11\nimage12\n")
    (folder / "test_images_list.txt").write_text("image1\n")
    return folder


def test_questions_lose_the_name_of_their_image(folder: Path) -> None:
    daquar = read_daquar(folder)
    records = sorted((record for split in daquar.splits.values() for record in split), key=lambda r: int(r.question_id))
    assert [(record.question_id, record.image_id, record.question) for record in records] == [
        (0, "image10", "what is on the left of the image behind the door"),
        (1, "image11", "how many red chairs are on the right side"),
        (2, "image1", "what colour is the wall"),
        (3, "image2", "what is on the table"),
    ]
    assert [record.answers for record in records] == [("chair",), ("2",), ("light_blue, white",), ("cup",)]
    assert [record.answer_type for record in records] == ["one", "one", "several", "one"]
    assert [record.question_type for record in records] == ["object", "number", "color", "object"]
    assert daquar.metric == "exact_match"


def test_images_decide_the_split(folder: Path) -> None:
    daquar = read_daquar(folder)
    images = {split: {record.image_id for record in records} for split, records in daquar.splits.items()}
    assert images["test"] == {"image1"}
    assert images["train"] | images["val"] == {"image2", "image10", "image11"}
    assert set(daquar.images) == {"image1", "image2", "image10", "image11"}
    assert daquar.images["image1"] == folder / "images" / "image1.png"
    assert list(map(str, daquar.skipped)) == ["image 'image12': no question is about it"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("all_qa_pairs.txt", PAIRS + "what is in the image2 ?\n", "line 9: a question without an answer"),
        ("all_qa_pairs.txt", "what is on the table ?\ncup\n", "line 1: no image is named"),
        ("all_qa_pairs.txt", PAIRS + "what is in the image99 ?\ncup\n", "line 9: image99 is neither in"),
        ("test_images_list.txt", "image1\nimage2\n", "image2 is also in train_images_list.txt"),
        ("test_images_list.txt", "\n", "test_images_list.txt: the list is empty"),
        ("all_qa_pairs.txt", PAIRS + "caf\xe9", r"line 9: not UTF-8 text .*; convert the file to UTF-8$"),
    ],
)
def test_mistakes_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_daquar(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "images" / "image2.jpg").unlink()
    with pytest.raises(ValueError, match="no image 'image2'"):
        read_daquar(folder)
    (folder / "train_images_list.txt").unlink()
    with pytest.raises(ValueError, match=r"has no train_images_list\.txt and no train\.txt"):
        read_daquar(folder)


def test_the_authors_own_names_and_an_archive(folder: Path, tmp_path: Path) -> None:
    expected = read_daquar(folder).splits
    names = {"all_qa_pairs.txt": "qa.894.raw.txt"} | {f"{s}_images_list.txt": f"{s}.txt" for s in ("train", "test")}
    with zipfile.ZipFile(tmp_path / "daquar.zip", "w") as archive:
        for ours, theirs in names.items():
            (folder / ours).rename(folder / theirs)
            archive.write(folder / theirs, theirs)
    assert read_daquar(folder).splits == expected
    assert read_daquar(tmp_path / "daquar.zip", images=folder / "images").splits == expected


def test_a_folder_is_the_same_by_any_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert read_daquar(folder.name).source == read_daquar(folder).source


def test_the_command_writes_the_three_splits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "daquar", str(folder), str(tmp_path / "out")]) == 0
    assert "daquar (exact_match)" in capsys.readouterr().out
    test = read_vqa(tmp_path / "out/test_questions.json", tmp_path / "out/test_annotations.json")
    assert (test.metric, [record.answer for record in test.records]) == ("exact_match", ["light_blue, white"])


def test_the_real_folder(shared_data: Path) -> None:
    if not (shared_data / "daquar").is_dir():
        pytest.skip("DAQUAR is not there")
    daquar = read_daquar(shared_data / "daquar")
    images = {split: {record.image_id for record in records} for split, records in daquar.splits.items()}
    listed = (shared_data / "daquar/train_images_list.txt").read_text().split()
    assert len(daquar.splits["train"]) + len(daquar.splits["val"]) == 6795
    # 795 and 654 are listed; one of each has no question.
    assert (len(images["train"]), len(images["val"])) == (714, 80)
    assert images["train"] | images["val"] == set(listed) - {"image366"}
    assert (len(daquar.splits["test"]), len(images["test"])) == (5673, 653)
    assert not images["train"] & images["val"]
    records = [record for split in daquar.splits.values() for record in split]
    assert not any(re.search(r"image ?\d", record.question) for record in records)
    assert sum(record.answer_type == "one" for record in records) == 6149 + 5076
