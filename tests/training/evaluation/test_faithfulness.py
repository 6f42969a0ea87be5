from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.cli import main
from coattn.explain.faithful import CONTROL
from coattn.predictor import Predictor
from coattn.training.evaluation.faithfulness import _possible


def test_explain_test_measures_and_keeps(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    model = tmp_path / "run" / "model"
    numbers, curve = tmp_path / "f.json", tmp_path / "f.png"
    command = ["explain-test", str(model), "--questions", "10", "--methods", "dependence", "attention"]
    assert main([*command, "--json", str(numbers), "--curve", str(curve)]) == 0
    report = json.loads(numbers.read_text())
    assert list(report["methods"]) == ["dependence", "attention", CONTROL]
    assert set(report["random"]) == {"mask", "mean feature"}
    assert "points above a random order" in capsys.readouterr().out
    assert Image.open(curve).width > 900
    score = report["methods"]["dependence"]["mask"]["score"]
    assert Predictor.load(model).faithfulness["dependence"] == score
    assert f"{score:.1f}" in (model / "README.md").read_text(encoding="utf-8")
    for wrong, message in (
        (["--questions", "1"], "at least 2"),
        (["--methods", "magic"], "no method of explanation 'magic'"),
        (["--curve", "x.bmp"], "must end in .png"),
    ):
        assert main(["explain-test", str(model), *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_model_without_maps_over_regions_is_explained_by_what_it_depends_on() -> None:
    weights = np.ones((1, 1, 4))
    assert _possible({"pooling.question": weights}) == ["dependence"]
    assert _possible({"pooling.question": weights, "pooling.regions": weights}) == [
        "dependence",
        "attention",
        "rollout",
    ]
