from __future__ import annotations

from pathlib import Path

import pytest

from coattn._internal.configs import packaged_configs
from coattn.cli import main
from coattn.cli.fit import _with_packaged_configs

CONFIGS = Path(__file__).parents[2] / "configs"


def test_all_configurations_are_packaged_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    names = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in sorted(CONFIGS.glob("**/*.yaml"))]
    assert list(packaged_configs()) == names
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split(maxsplit=1)[1]) > 20 and line.endswith(".") for line in lines)
    assert "word by word on DAQUAR: photos of rooms." in lines[names.index("daquar_generator")]


def test_the_header_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "easy_vqa"]) == 0
    text = capsys.readouterr().out
    assert "coattn fit --config configs/easy_vqa.yaml" in text
    assert "\nTest accuracy: " in text
    assert "seed_everything" not in text


def test_a_copy_is_the_same_and_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dest in (tmp_path, tmp_path / "mine.yaml"):
        assert main(["configs", "copy", "published/mcan_small", str(dest)]) == 0
    original = (CONFIGS / "published" / "mcan_small.yaml").read_bytes()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "mcan_small.yaml": original,
        "mine.yaml": original,
    }
    assert main(["configs", "copy", "table", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml already exists" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_bytes() == original


def test_an_unknown_name_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "esy_vqa"]) == 2
    assert "there is no configuration 'esy_vqa'; did you mean 'easy_vqa'?" in capsys.readouterr().err


def test_a_packaged_configuration_is_named_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(packaged_configs()["table"])
    assert _with_packaged_configs(["fit", "--config", "table"]) == ["fit", "--config", path]
    assert _with_packaged_configs(["fit", "--config=table", "table"]) == ["fit", f"--config={path}", "table"]
    (tmp_path / "table").write_text("trainer: {}")
    assert _with_packaged_configs(["fit", "--config", "table"]) == ["fit", "--config", "table"]
