"""`coattn extract`, `fit` and `predict` on two hosts, and what happens when one of them is cut off."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import HAS_NAMESPACES, Hosts, two_hosts
from PIL import Image
from test_devices import SCRIPT
from tiny import change, plain_descent

from coattn._internal.files import read_json
from coattn.cli import main
from coattn.training.checkpoints import read_checkpoint
from coattn.training.optim import OPTIMIZERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_NAMESPACES, reason="needs root and the command ip for network namespaces"),
]
TWO = ("--trainer.num_nodes", "2", "--trainer.devices", "1")
LIMIT = 20  # seconds without a sign of life of the other host


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with two_hosts() as found:
        yield found


@pytest.fixture
def plain(config: Path, tmp_path: Path) -> Path:
    """A run without random numbers."""
    model = {"sizes": {"dropout": 0.0}, "optimizer": "adam", "lr": 0.1, "schedule": "constant"}
    strategy = {
        "class_path": "lightning.pytorch.strategies.DDPStrategy",
        "init_args": {"process_group_backend": "gloo"},
    }
    (tmp_path / "run_coattn.py").write_text(SCRIPT)
    change(config, tmp_path / "one.yaml", {"model": model})
    return change(config, tmp_path / "two.yaml", {"model": model, "trainer": {"strategy": strategy}})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """600 images, which make three shards, and their list, by which an extraction may go on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(600):
        Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    images = folder / "images.json"
    images.write_text(json.dumps({f"{number:03}": f"{number:03}.png" for number in range(600)}))
    return images


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def weights(root: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(root / "checkpoints" / "last.ckpt")["state_dict"]


def test_two_hosts_do_what_one_process_does(
    hosts: Hosts, plain: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "adam", plain_descent)
    for status, _, errors in hosts.run("-m", "coattn", "extract", photos, tmp_path / "shards"):
        assert status == 0, errors
    assert main(["extract", str(photos), str(tmp_path / "alone")]) == 0
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")

    script, one = tmp_path / "run_coattn.py", tmp_path / "one.yaml"
    fit = ("fit", "--config", plain, "--trainer.default_root_dir", tmp_path / "two")
    for status, _, errors in hosts.run(script, *fit, *TWO):
        assert status == 0, errors
    assert main(["fit", "--config", str(one), "--trainer.default_root_dir", str(tmp_path / "one")]) == 0
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-5, atol=1e-6, msg=name)

    model = ("--ckpt_path", tmp_path / "one" / "model")
    for status, _, errors in hosts.run(
        script, "predict", "--config", plain, *model, *TWO, "--output", tmp_path / "2.json"
    ):
        assert status == 0, errors
    assert main(["predict", "--config", str(one), *map(str, model), "--output", str(tmp_path / "1.json")]) == 0
    for alone, shared in zip(read_json(tmp_path / "1.json"), read_json(tmp_path / "2.json"), strict=True):
        assert shared == {**alone, "confidence": pytest.approx(alone["confidence"], abs=1e-5)}


def test_a_host_that_is_cut_off_ends_training_which_goes_on_with_any_number(
    hosts: Hosts, plain: Path, tmp_path: Path
) -> None:
    script, run = tmp_path / "run_coattn.py", tmp_path / "run"
    fit = (script, "fit", "--config", plain, "--trainer.default_root_dir", run, "--rank-time-limit", LIMIT)
    processes = [hosts.start(host, *fit, *TWO, "--trainer.max_epochs", "100000") for host in (0, 1)]
    wait_for(run / "checkpoints" / "last.ckpt", processes[0])
    hosts.cut()
    try:
        for here, process in enumerate(processes):
            _, errors = process.communicate(timeout=500)
            assert process.returncode != 0
            lost = f"rank {1 - here} of 2 no longer responds; run the same command with --resume to continue"
            assert lost in errors, errors
    finally:
        hosts.power_off(1)
        hosts.mend()
    done = read_checkpoint(run / "checkpoints" / "last.ckpt", complete=True)["global_step"]
    more = (*fit, "--resume", "--trainer.max_epochs", "100000", "--trainer.max_steps")
    for status, _, text in hosts.run(*more, done + 10, *TWO):
        assert status == 0, text
    process = hosts.start(0, *more, done + 20, "--trainer.devices", "1", hosts=1)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == done + 20


def test_a_host_that_loses_power_ends_extraction_which_goes_on(hosts: Hosts, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    processes = [hosts.start(host, "-m", "coattn", "extract", photos, out) for host in (0, 1)]
    wait_for(out / "manifest.json", processes[0])
    hosts.power_off(1)
    _, errors = processes[0].communicate(timeout=500)
    assert main(["extract", str(photos), str(tmp_path / "whole")]) == 0
    if processes[0].returncode:  # the second host had not finished
        assert "process 1 of 2 gave no sign of life for 60 seconds" in errors, errors
        assert "run the same command again to finish" in errors
        assert main(["extract", str(photos), str(out)]) == 0
    for path in out.glob(".process-*"):
        path.unlink()
    assert contents(out) == contents(tmp_path / "whole")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
