"""Copies among images: identical files, re-encoded pictures, and how they are kept in one split."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.cli import main
from coattn.datasets import copies as copies_module
from coattn.datasets.copies import find_copies, find_near_copies
from coattn.datasets.dividing import divide
from coattn.datasets.image_files import ArrayImage
from coattn.datasets.records import Record

pytestmark = pytest.mark.usefixtures("no_picture")


def photo(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def test_identical_files_have_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "_HEAD", 4)
    for name, content in {"c": b"same and same", "a": b"same and same", "b": b"same but not!", "d": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    images = {name: tmp_path / name for name in "cabd"} | {"gone": tmp_path / "gone"}
    assert find_copies(images) == {"a": "a", "c": "a"}


def test_identical_members_of_an_archive_and_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, content in (("a.png", b"1"), ("b.png", b"1"), ("c.png", b"2")):
            archive.writestr(name, content)
    root = zipfile.Path(tmp_path / "images.zip")
    assert find_copies({name: root / f"{name}.png" for name in "abc"}) == {"a": "a", "b": "a"}
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    arrays = {"x": ArrayImage(black), "y": ArrayImage(white), "z": ArrayImage(black.copy())}
    assert find_copies(arrays) == {"x": "x", "z": "x"}


def test_recoded_and_resized_pictures_look_the_same(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "train.png")
    photo(1).save(tmp_path / "other.png")
    photo(0).save(tmp_path / "copy.jpg", quality=80)
    photo(0).resize((48, 32), Image.Resampling.LANCZOS).save(tmp_path / "small.png")
    photo(2).save(tmp_path / "new.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    near, unreadable = find_near_copies(
        {name: tmp_path / f"{name}.png" for name in ("train", "other")},
        {name: tmp_path / name for name in ("copy.jpg", "small.png", "new.png", "broken.png")},
    )
    assert near == {"copy.jpg": "train", "small.png": "train"}
    assert unreadable == ["broken.png"]


def test_plain_pictures_of_other_colors_differ(tmp_path: Path) -> None:
    for name in ("red", "darkred", "blue"):
        Image.new("RGB", (8, 8), name).save(tmp_path / f"{name}.png")
    files = {name: tmp_path / f"{name}.png" for name in ("red", "darkred", "blue")}
    assert find_near_copies({"red": files["red"]}, {"darkred": files["darkred"], "blue": files["blue"]}) == ({}, [])


def asked(image: str, group: str = "", split: str = "") -> Record:
    return Record(image, image, "q", ("a",), split=split, extra={"group": group} if group else {})


def test_groups_and_copies_stay_together() -> None:
    records = [asked(f"{n}", group=f"patient {n // 3}") for n in range(60)] + [asked("copy of 0"), asked("alone")]
    splits = divide(records, {"test": 0.3, "val": 0.2}, seed=0, copies={"0": "0", "copy of 0": "0"})
    assert set(splits) == {"train", "val", "test"}
    places: dict[str, set[str]] = {}
    for name, kept in splits.items():
        for record in kept:
            group = "patient 0" if record.image_id == "copy of 0" else record.extra.get("group", "alone")
            places.setdefault(group, set()).add(name)
    assert {len(names) for names in places.values()} == {1}
    assert len(places) == 21


def test_an_image_of_two_groups_joins_them() -> None:
    records = [asked("a", "x"), asked("b", "x"), asked("b", "y"), asked("c", "y"), asked("d"), asked("e")]
    splits = divide(records, {"test": 0.4}, seed=1, copies={})
    (split,) = {name for name, kept in splits.items() if any(record.image_id in ("a", "b", "c") for record in kept)}
    assert {record.image_id for record in splits[split]} >= {"a", "b", "c"}


def test_prepare_keeps_patients_and_copies_in_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """40 pictures, each under two names: divided by name, copies would be in train and test."""
    (tmp_path / "img").mkdir()
    colors = random.Random(0)
    rows = ["image,question,answer,patient"]
    for number in range(40):
        picture = Image.new("RGB", (8, 8), tuple(colors.randrange(256) for _ in range(3)))
        for name in (f"p{number}_a.png", f"p{number}_copy.png"):
            picture.save(tmp_path / "img" / name)
            rows.append(f"{name},is it bright?,yes,patient {number // 2}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    command = ["prepare", "table", f"{tmp_path}/t.csv", "--images", f"{tmp_path}/img"]
    assert main([*command, f"{tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    assert "warning: 80 images have byte-identical copies under other names; none occurs in several splits" in printed
    assert "note: the column 'patient' may name what belongs together; --group 'patient'" in printed
    assert main([*command, f"{tmp_path}/out2", "--group", "patient"]) == 0
    where: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for question in json.loads((tmp_path / f"out2/{split}_questions.json").read_text())["questions"]:
            where.setdefault(question["group"], set()).add(split)
    assert len(where) == 20
    assert {len(splits) for splits in where.values()} == {1}


def test_leaks_of_given_splits_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "img").mkdir()
    content = io.BytesIO()
    photo(0).save(content, "PNG")
    for name in ("a.png", "b.png"):
        (tmp_path / "img" / name).write_bytes(content.getvalue())
    photo(0).save(tmp_path / "img" / "c.jpg", quality=85)
    rows = ["image,question,answer,split,case"]
    rows += ["a.png,Is it there?,yes,train,1", "b.png,is it there,yes,test,1", "c.jpg,What?,x,test,2"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    command = ["prepare", "table", f"{tmp_path}/t.csv", "--images", f"{tmp_path}/img", "--group", "case"]
    assert main([*command, f"{tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "1 of 2 test questions are also in train, about the same image",
        "2 images have byte-identical copies under other names; 1 of these pictures occur in several splits",
        "1 groups occur in several splits",
        "1 images look the same as a training image, for example 'c.jpg' and 'a.png'",
    ):
        assert f"warning: {line}" in printed
    assert main([*command, f"{tmp_path}/out", "--no-near-copies"]) == 0
    assert "look the same" not in capsys.readouterr().out
