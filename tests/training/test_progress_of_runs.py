from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest

from coattn._internal import progress
from coattn.cli import main
from coattn.training.progress import quiet


def test_warnings_look_like_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print(warnings.formatwarning("few images", UserWarning, "somewhere.py", 7), file=sys.stderr, end="")
    assert capsys.readouterr().err == "coattn: warning: few images\n"
    assert "somewhere.py" in warnings.formatwarning("few images", UserWarning, "somewhere.py", 7)


def test_predict_writes_progress_into_a_log(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    options = ["predict", "--config", str(config), "--data.batches.eval_size", "4"]
    assert main([*options, "--trainer.enable_progress_bar", "true"]) == 0
    lines = re.findall(
        r"predict: (\d+) of (\d+) questions, .* questions/s(?:, .* left| in .*)", capsys.readouterr().err
    )
    done, totals = zip(*lines, strict=True)
    assert done[:2] == ("4", "8")
    assert {done[-1]} == {*totals}
    assert main(options) == 0  # this configuration switches it off
    assert "questions/s" not in capsys.readouterr().err
