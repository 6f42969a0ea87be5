"""Model directories that replace others, completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from saved_models import save

from coattn._internal import files
from coattn.serialization.directory import load, load_directory


def test_replaces_a_model_and_leaves_no_trace(tmp_path: Path) -> None:
    save(tmp_path / "model", extra={"number": 1})
    save(tmp_path / "model", extra={"number": 2})
    assert load_directory(tmp_path / "model").extra == {"number": 2}
    assert os.listdir(tmp_path) == ["model"]


def test_others_may_read_it_as_they_may_read_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    folder = save(tmp_path / "model")
    assert folder.stat().st_mode == (tmp_path / "folder").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "file").stat().st_mode}


def test_can_take_its_files_from_the_model_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    folder = save(tmp_path / "model", extractor_weights=tmp_path / "weights")
    save(folder, extractor_weights=folder / "extractor.safetensors")
    assert (folder / "extractor.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("precious", ["thesis.tex", "model/../thesis.tex"])
def test_a_folder_that_is_no_model_is_left_alone(precious: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / precious).write_text("years")
    with pytest.raises(ValueError, match="not a model directory"):
        save(tmp_path)
    assert (tmp_path / precious).read_text() == "years"


def test_foreign_files_in_a_model_directory_are_not_deleted(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"would delete notes\.txt"):
        save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_leftovers_of_a_killed_command_do_not_keep_a_model_from_being_replaced(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / ".certificate.json.a1b2c3.partial").write_text("{")
    save(folder, finish=lambda new: (new / "certificate.json").write_text("[]"))
    assert (folder / "certificate.json").read_text() == "[]"
    assert not list(folder.glob(".*"))


def test_leftovers_in_a_foreign_folder_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / ".film.mp4.partial").write_text("mine")
    (tmp_path / "film.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a model directory"):
        save(tmp_path)
    assert (tmp_path / ".film.mp4.partial").read_text() == "mine"


def test_an_unfinished_save_leaves_the_old_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", extra={"number": 1})
    with pytest.raises(FileNotFoundError):
        save(folder, extractor_weights=tmp_path / "missing.safetensors")
    assert load_directory(folder).extra == {"number": 1}
    assert os.listdir(tmp_path) == ["model"]


def test_replacing_a_model_has_no_moment_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "model")
    exchange = files.exchange

    def observed(first: Path, second: Path) -> None:
        load(second)
        exchange(first, second)
        load(second)

    monkeypatch.setattr(files, "exchange", observed)
    save(tmp_path / "model", temperature=3.0)
    assert load_directory(folder).temperature == 3.0
    assert list(tmp_path.iterdir()) == [folder]


def test_a_model_is_recovered_after_an_interrupted_replacement(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    folder.rename(tmp_path / ".model.old")  # killed here, on a system that cannot exchange two names
    with pytest.raises(FileNotFoundError, match=r"rename .*\.model\.old to it"):
        load(folder)
    save(tmp_path / "model", temperature=3.0)
    assert load_directory(folder).temperature == 3.0
    assert list(tmp_path.iterdir()) == [folder]
