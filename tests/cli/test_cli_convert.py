from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coattn.cli import main
from coattn.cli.convert import PROJECTS as COMMANDS
from coattn.cli.convert import separated
from coattn.features.store.reader import FeatureStore
from coattn.weights.convert import PROJECTS


def test_merge(tmp_path, capsys):
    for name in ("a", "b"):
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(tmp_path / f"{name}.png")
        assert main(["extract", str(tmp_path / f"{name}.png"), str(tmp_path / name)]) == 0
    out = tmp_path / "all.h5"
    assert main(["convert", "merge", str(tmp_path / "a"), str(tmp_path / "b"), str(out)]) == 0
    assert f"{out}: 2 images, 32 rows of 56, float16" in capsys.readouterr().out
    assert FeatureStore(out).image_ids == ["a", "b"]
    assert main(["convert", "merge", str(tmp_path / "a"), str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def test_every_project_has_its_command() -> None:
    assert set(COMMANDS) == set(PROJECTS)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("openvqa C --questions a b O", "openvqa C --questions a b -- O"),
        ("openvqa C --model mcan --repaired --config=x --questions a O", "same"),
        ("openvqa C --questions a b O --repaired", "openvqa C --questions a b --repaired -- O"),
        ("openvqa C --questions a b O --model mcan", "openvqa C --questions a b --model mcan -- O"),
        ("openvqa C O --questions a b", None),
        ("openvqa C --questions a b --model mcan O", None),
        (
            "openvqa --repaired C --model mcan --questions a b O",
            "openvqa --repaired C --model mcan --questions a b -- O",
        ),
        ("openvqa C --questions O", None),
        ("openvqa C --questions a b -- O", None),
        ("merge a b.h5", None),
    ],
)
def test_the_directory_may_follow_the_question_files(argv: str, expected: str | None) -> None:
    if expected == "same":
        expected = " -- ".join(argv.rsplit(" ", 1))
    assert separated(argv.split()) == (expected or argv).split()
