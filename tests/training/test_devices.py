from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import change, plain_descent

from coattn._internal.files import read_json
from coattn.cli import main
from coattn.training.checkpoints import read_checkpoint
from coattn.training.optim import OPTIMIZERS

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny import plain_descent
from coattn.cli import main
from coattn.training.optim import OPTIMIZERS
OPTIMIZERS["adam"] = plain_descent
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "run_coattn.py"
    path.write_text(SCRIPT)
    return path


def coattn(script: Path, *arguments: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, (script, *arguments))], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr


def validations(root: Path) -> list[float]:
    """The logged loss and accuracy of each validation."""
    with (root / "logs" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row["val/loss"] for name in METRICS]


METRICS = ("val/loss", "val/accuracy")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.mark.parametrize(
    ("reduction", "lr", "checkpointed"),
    [pytest.param("mean", 0.1, False), pytest.param("sum", 0.01, True, marks=pytest.mark.slow)],
)
def test_two_devices_train_as_one(
    reduction: str,
    lr: float,
    checkpointed: bool,
    script: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {"sizes": {"dropout": 0.0}, "optimizer": "adam", "lr": lr, "schedule": "constant", "reduction": reduction}
    plain["checkpoint_activations"] = checkpointed
    config = change(config, tmp_path / "plain.yaml", {"model": plain, "trainer": {"accumulate_grad_batches": 2}})
    one, two = (("--config", config, "--trainer.default_root_dir", tmp_path / name) for name in ("one", "two"))
    coattn(script, "fit", *two, *TWO)
    monkeypatch.setitem(OPTIMIZERS, "adam", plain_descent)
    assert main(["fit", *map(str, one)]) == 0
    weights = [read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-5, atol=1e-6, msg=name)
    alone, shared = (validations(tmp_path / name) for name in ("one", "two"))
    assert shared == pytest.approx(alone, abs=1e-4), "13 questions are not divisible by two devices"
    assert (tmp_path / "two" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_devices_answer_as_one(script: Path, config: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    for name, devices in (("one", ()), ("two", TWO)):
        coattn(script, "predict", "--config", config, *devices, "--output", tmp_path / name)
    one, two = (read_json(tmp_path / name) for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):  # batches differ, and with them the last digits
        assert shared == {**alone, "confidence": pytest.approx(alone["confidence"], abs=1e-5)}


@pytest.mark.slow
def test_two_devices_go_on_to_the_same_weights(script: Path, config: Path, tmp_path: Path) -> None:
    config = change(config, tmp_path / "constant.yaml", {"model": {"schedule": "constant"}})
    common = ("fit", "--config", config, *TWO)
    whole, broken = (
        ("--trainer.default_root_dir", tmp_path / "whole"),
        ("--trainer.default_root_dir", tmp_path / "broken"),
    )
    coattn(script, *common, *whole)
    coattn(script, *common, *broken, "--trainer.max_steps", "10")  # in the midst of the second of three epochs
    coattn(script, *common, *broken, "--resume")
    weights = [
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "broken")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
