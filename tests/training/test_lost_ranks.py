"""Several processes, of which one ends: the others say which, and a signal stops all of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import change

import coattn.training.lost_ranks
from coattn.training.checkpoints import read_checkpoint
from coattn.training.lost_ranks import Ranks

pytestmark = pytest.mark.slow


def lonely(rank: int, lost: int, how: signal.Signals, port: str, said: Path) -> None:
    """One of three processes that work together until one of them is killed or frozen."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="3", RANK=str(rank))
    sys.stderr = said.open("w")
    ranks, value = Ranks("start again", time_limit=6), torch.zeros(1)
    strategy = SimpleNamespace(launcher=None, setup_environment=lambda: torch.distributed.init_process_group("gloo"))
    trainer: Any = SimpleNamespace(world_size=3, global_rank=rank, strategy=strategy)
    ranks.attach(trainer)
    strategy.setup_environment()
    torch.distributed.all_reduce(value)
    if rank == lost:
        os.kill(os.getpid(), how)
    try:
        with ranks.named_when_lost():
            while True:
                torch.distributed.all_reduce(value)
    except ValueError as error:
        print(f"coattn: error: {error}", file=sys.stderr)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_others_name_the_process_that_is_lost(
    lost: int, how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coattn.training.lost_ranks, "_PATIENCE", 12.0)  # longer than finding out who is lost
    port, processes = free_port(), []
    for rank in range(3):
        processes.append(os.fork())  # the imports take longer than all else
        if not processes[-1]:
            try:
                lonely(rank, lost, how, port, tmp_path / str(rank))
            finally:
                sys.stderr.flush()
                os._exit(0)
    for process in processes[:lost] + processes[lost + 1 :]:
        os.waitpid(process, 0)
    os.kill(processes[lost], signal.SIGKILL)
    os.waitpid(processes[lost], 0)
    found = {path.name: path.read_text().strip().partition(" (")[0] for path in tmp_path.iterdir()}
    message = f"coattn: error: rank {lost} of 3 no longer responds; start again"
    assert found == {str(rank): "" if rank == lost else message for rank in range(3)}


def test_a_time_limit_below_three_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="rank_time_limit 5 is too short; it must be at least 6 seconds"):
        Ranks("start again", time_limit=5)


FROZEN = """
import os, signal, sys
from lightning.pytorch.strategies import DDPStrategy
from coattn.cli import main

def barrier(self, name=None):
    if os.environ.get("LOCAL_RANK") == "1":
        os.kill(os.getpid(), signal.SIGSTOP)
    wait(self, name)

wait, DDPStrategy.barrier = DDPStrategy.barrier, barrier
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_freezes_before_the_first_barrier_is_named(config: Path, tmp_path: Path) -> None:
    script = tmp_path / "frozen.py"
    script.write_text(FROZEN)
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--rank-time-limit", "6"]
    command = [sys.executable, "-W", "ignore", script, "fit", "--config", config, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "coattn: error: rank 1 of 2 no longer responds; run the same command with --resume" in done.stderr


def start(config: Path) -> subprocess.Popen[str]:
    """A run on two devices, which has begun to train."""
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "10000"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "coattn", "fit", "--config", str(config), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # blocks until there is one
        if line.startswith("epoch 1"):
            return process
    raise AssertionError("it ended before the second epoch")


def other(process: subprocess.Popen[str]) -> int:
    """The process of the second device."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError("there is no second process")


def has_ended(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "killed"])
def test_two_devices_end_with_a_checkpoint(how: str, config: Path, tmp_path: Path) -> None:
    config = change(config, tmp_path / "constant.yaml", {"model": {"schedule": "constant"}})
    process = start(config)
    second = other(process)
    os.kill(second if how == "killed" else process.pid, signal.SIGKILL if how == "killed" else signal.Signals[how])
    assert process.stderr is not None
    errors = process.stderr.read()
    status = process.wait(timeout=300)
    if how == "killed":
        assert status == 2
        assert "coattn: error: rank 1 of 2 no longer responds; run the same command with --resume" in errors
    else:
        assert status == 128 + signal.Signals[how]
        assert f"coattn: ended by {how}; run the same command with --resume to continue" in errors
    deadline = time.monotonic() + 300
    while not has_ended(second) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert has_ended(second)
    assert "Traceback" not in errors
    read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt", complete=True)
