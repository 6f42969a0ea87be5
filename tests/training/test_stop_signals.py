"""Signals in the midst of a command: a non-zero status, and what is needed to go on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from coattn.cli import main
from coattn.training.checkpoints import read_checkpoint
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import CollectAnswers
from coattn.training.task import VQATask


class Interrupt(Callback):
    """Sends a signal to this process at the beginning of the tenth step, in the midst of the second epoch."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: Trainer, pl_module: VQATask, *_: object) -> None:
        if trainer.global_step == 9:
            signal.raise_signal(self.number)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a job of one task, in which Lightning looks for hpc_ckpt_*.ckpt."""
    variables = {"JOB_ID": 7, "NTASKS": 1, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NNODES": 1}
    for name, value in (variables | {"JOB_NODELIST": "localhost"}).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.usefixtures("slurm")
def test_a_preempted_job_goes_on_or_starts_anew(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def weights(root: Path) -> dict[str, torch.Tensor]:
        return read_checkpoint(root / "checkpoints" / "last.ckpt")["state_dict"]

    root, clean = tmp_path / "run", tmp_path / "clean"
    with monkeypatch.context() as patched:
        configure = VQATask.configure_callbacks
        patched.setattr(VQATask, "configure_callbacks", lambda self: [*configure(self), Interrupt(signal.SIGUSR1)])
        assert main(["fit", "--config", str(config)]) == 128 + signal.SIGUSR1
    assert "ended by SIGUSR1; run the same command with --resume" in capsys.readouterr().err
    assert read_checkpoint(root / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert not list(root.glob("hpc_ckpt*"))
    assert not (root / "model").exists()
    assert main(["fit", "--config", str(config), "--trainer.default_root_dir", str(clean)]) == 0
    # A checkpoint of Lightning's own, as earlier versions left it.
    stray = root / "hpc_ckpt_1.ckpt"
    shutil.copy(root / "checkpoints" / "last.ckpt", stray)
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    resumed = weights(root)
    shutil.rmtree(root / "checkpoints")
    assert main(["fit", "--config", str(config)]) == 2
    assert "hpc_ckpt_1.ckpt); resume it (--resume)" in capsys.readouterr().err
    assert main(["fit", "--config", str(config), "--overwrite"]) == 0
    assert not stray.exists()
    for name, tensor in weights(clean).items():
        assert torch.equal(resumed[name], tensor), name
        assert torch.equal(weights(root)[name], tensor), name


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])  # the latter also without SLURM
def test_training_ends_with_a_checkpoint(
    name: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = signal.Signals[name]
    configure = VQATask.configure_callbacks
    monkeypatch.setattr(VQATask, "configure_callbacks", lambda self: [*configure(self), Interrupt(number)])
    assert main(["fit", "--config", str(config)]) == 128 + number
    assert f"ended by {name}; run the same command with --resume to continue" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt", complete=True)["global_step"] == 10
    assert not (tmp_path / "run" / "model").exists()


def test_a_signal_before_training_begins_ends_the_command(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(VQADataModule, "setup", lambda self, stage: signal.raise_signal(signal.SIGTERM))
        assert main(["fit", "--config", str(config), "--resume"]) == 128 + signal.SIGTERM
    assert "ended by SIGTERM; run the same command with --resume to continue" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["fit", "--config", str(config), "--resume", "--trainer.max_epochs", "1"]) == 0


@pytest.mark.parametrize("command", ["predict", "test"])
def test_an_evaluation_ends_at_once_and_writes_nothing(
    command: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    batches = []

    def interrupted(self: CollectAnswers, *arguments: Any) -> None:
        batches.append(1)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(CollectAnswers, f"on_{command}_batch_end", interrupted)
    assert main([command, "--config", str(config), "--data.batches.eval_size", "4"]) == 128 + signal.SIGTERM
    assert len(batches) == 1
    assert "ended by SIGTERM; nothing was written" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("predictions/*"))
