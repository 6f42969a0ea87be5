"""Preparing into a folder that exists: old or new at every instant, and nothing of others is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coattn.datasets.prepared import Dataset, write_dataset
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import UNFINISHED, read_vqa


class Killed(BaseException):
    """Stops `write_dataset` at once; no handler of it catches this, as none sees SIGKILL."""


def dataset(text: str, **changes: Any) -> Dataset:
    record = Record(1, "a", f"{text}?", (text,), "other", "what", "train")
    splits = {"train": [record], "val": [replace(record, image_id="b", split="val")]}
    return replace(Dataset(name="table", source="/my.csv", splits=splits, metric="exact_match"), **changes)


def state(out: Path) -> str:
    """The data set that a training run would read: "old", "new", or "refused"."""
    try:
        (record,) = read_vqa(out / "train_questions.json", out / "train_annotations.json").records
    except ValueError as error:
        return "refused" if "was interrupted while it wrote this folder; run it again" in str(error) else str(error)
    return record.answer if record.question == f"{record.answer}?" else "mixed"


def test_stopped_before_any_file_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    countdown = [0]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            countdown[0] -= 1
            if countdown[0] == 0:
                raise Killed
            return operation(*arguments, **options)

        return wrapped

    for name in ("replace", "rename", "unlink", "touch"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    states: list[str] = []
    while not states or states[-1] != "new":
        write_dataset(dataset("old"), out)
        countdown[0] = len(states) + 1
        try:
            write_dataset(dataset("new"), out)
        except Killed:
            states.append(state(out))
        else:
            states.append(state(out))
            break
    assert set(states) == {"old", "refused", "new"}
    assert states == sorted(states, key=["old", "refused", "new"].index)


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.abcdef.partial").mkdir()
    (tmp_path / ".out.abcdef.partial" / "images.json").write_text("{")
    write_dataset(dataset("new"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_marked_folder_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    write_dataset(dataset("old"), tmp_path / "out")
    (tmp_path / "out" / UNFINISHED).touch()
    assert state(tmp_path / "out") == "refused"
    write_dataset(dataset("new"), tmp_path / "out")
    assert state(tmp_path / "out") == "new"
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_only_files_that_prepare_makes_are_removed(tmp_path: Path) -> None:
    """report.json of a folder from elsewhere may name any file."""
    out = tmp_path / "out"
    write_dataset(dataset("old"), out)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    (out / "link").symlink_to(tmp_path / "home")
    (out / "features").mkdir()
    (out / "features" / "manifest.json").write_text("{}")
    report = json.loads((out / "report.json").read_text())
    report["files"] += ["link/thesis.txt", "features/manifest.json", "../home/thesis.txt", "dev_questions.json"]
    (out / "report.json").write_text(json.dumps(report))
    (out / "dev_questions.json").write_text("{}")
    write_dataset(dataset("new"), out)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "precious"
    assert (out / "features" / "manifest.json").exists()
    assert not (out / "dev_questions.json").exists()


def test_links_where_files_are_written_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write_dataset(dataset("old", images={"a": tmp_path / "a.png"}, copy_images=True), out)
    (tmp_path / "elsewhere").mkdir()
    (out / "images").rename(tmp_path / "elsewhere" / "images")
    (out / "images").symlink_to(tmp_path / "elsewhere" / "images")
    with pytest.raises(ValueError, match="images is a link; prepare does not write or remove files through links"):
        write_dataset(dataset("new", images={"a": tmp_path / "a.png"}, copy_images=True), out)
    assert state(out) == "old"


def test_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: is a named pipe, not a regular file"):
        write_dataset(dataset("new", images={"a": tmp_path / "a.png"}, copy_images=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
