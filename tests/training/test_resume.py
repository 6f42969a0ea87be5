from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from coattn.training.checkpoints import Checkpoints, read_checkpoint
from coattn.training.cli.commands import main

# Batches of 4 and two of them to a step: six steps in an epoch, with validations in its midst and at its end.
HARD = ["--data.batches.size", "4", "--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "5"]

# Of such a run the end need not be known.
CONSTANT = ["--model.schedule.name", "constant", "--trainer.limit_val_batches", "0"]


def fit(config: Path, root: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """Train in this process; the weights at the end."""
    main(["fit", "--config", str(config), "--trainer.default_root_dir", str(root), *arguments])
    return read_checkpoint(root / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture
def keep_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every checkpoint that is written is kept in this folder too."""
    folder, save = tmp_path / "kept", Checkpoints._save

    def save_and_keep(self: Checkpoints, trainer: Trainer, name: str) -> None:
        save(self, trainer, name)
        state = trainer.fit_loop.epoch_loop.batch_progress.total
        trainer.save_checkpoint(
            folder / f"{state.ready:03}-{Path(name).stem}-{trainer.state.stage}.ckpt", weights_only=False
        )

    monkeypatch.setattr(Checkpoints, "_save", save_and_keep)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_from_any_checkpoint_gives_the_same_weights(
    workers: int, config: Path, tmp_path: Path, keep_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [*HARD, "--data.memory.num_workers", str(workers), "--checkpoints.every_minutes", "0"]
    unbroken = fit(config, tmp_path / "unbroken", *common)
    monkeypatch.undo()
    kept = sorted(keep_all.glob("*.ckpt"))
    assert {path.name.split("-")[1] for path in kept} == {"last", "best"}
    assert any(read_checkpoint(path)["exact_resume"]["gradients"] for path in kept), "none cuts an accumulated step"
    finished = max(path for path in kept if path.name.endswith("TRAINING.ckpt"))  # leaves nothing to train
    for path in {*kept[1 :: 4 if workers == 0 else 17], finished}:  # each worker has to be started anew each time
        resumed = fit(config, tmp_path / f"from-{path.stem}", *common, "--ckpt_path", str(path))
        assert resumed.keys() == unbroken.keys()
        different = [name for name in unbroken if not torch.equal(resumed[name], unbroken[name])]
        assert not different, f"{path.name}: {different}"


def test_going_on_logs_the_same_metrics(config: Path, tmp_path: Path, keep_all: Path) -> None:
    def metrics(root: Path, version: int) -> list[dict[str, str]]:
        with (root / "logs" / f"version_{version}" / "metrics.csv").open() as file:
            return [row | {"peak_memory_gb": ""} for row in csv.DictReader(file)]

    root = tmp_path / "unbroken"
    fit(config, root, "--trainer.val_check_interval", "3", "--checkpoints.every_minutes", "0")
    middle = next(path for path in sorted(keep_all.glob("*.ckpt")) if path.name.startswith("008-last"))
    fit(config, tmp_path / "resumed", "--trainer.val_check_interval", "3", "--ckpt_path", str(middle))
    whole, rest = metrics(root, 0), metrics(tmp_path / "resumed", 0)
    assert whole[-len(rest) :] == rest
    assert 0 < len(rest) < len(whole)


SCRIPT = """
import sys
from coattn.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "run_coattn.py"
    path.write_text(SCRIPT)
    return path


def start(script: Path, config: Path, root: Path, *arguments: str) -> subprocess.Popen[str]:
    """The real command in a separate process, saving at each step."""
    command = [sys.executable, script, "fit", "--config", config, "--trainer.default_root_dir", root, *arguments]
    options = [*CONSTANT, "--trainer.max_epochs", "200", "--checkpoints.every_minutes", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for_step(process: subprocess.Popen[str], root: Path, step: int) -> None:
    last = root / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not last.exists() or read_checkpoint(last)["global_step"] < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_run_goes_on_to_the_same_weights(
    how: signal.Signals, script: Path, config: Path, tmp_path: Path
) -> None:
    root = tmp_path / "stopped"
    process = start(script, config, root)
    wait_for_step(process, root, 8)
    process.send_signal(how)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 128 + how), errors
    assert "Traceback" not in errors
    stopped_at = read_checkpoint(root / "checkpoints" / "last.ckpt")["global_step"]
    assert not (root / "model").exists()
    assert not list(root.glob("checkpoints/.*")) or how == signal.SIGKILL
    ends = [*CONSTANT, "--trainer.max_epochs", str(stopped_at // 6 + 2)]
    resumed = fit(config, root, *ends, "--resume")
    unbroken = fit(config, tmp_path / "unbroken", *ends)
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
