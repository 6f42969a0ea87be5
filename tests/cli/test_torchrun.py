"""`coattn extract` in several processes, started by torchrun as users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.cli import main

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
IMAGES = 600  # three shards
# Python runs this when it starts: the second process never ends reading an image of the second shard.
HANG = """
import os, pathlib, time
if os.environ.get("RANK") == "1":
    read = pathlib.Path.read_bytes
    pathlib.Path.read_bytes = lambda path: time.sleep(600) if path.name == "310.png" else read(path)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def start(processes: int, *arguments: object, hook: Path | None = None) -> subprocess.Popen[str]:
    command = [*LAUNCH, str(processes), "-m", "coattn", "extract", *map(str, arguments)]
    folders = [*([] if hook is None else [str(hook)]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_processes_do_what_one_does(photos: Path, tmp_path: Path) -> None:
    (photos / "300.png").write_text("no picture")
    out = tmp_path / "two"
    process = start(2, photos, out)
    stdout, stderr = process.communicate(timeout=300)
    # torchrun passes the first process's status 1 on, which says that an image was skipped.
    assert process.returncode == 1
    assert stdout.strip() == f"{out}: 599 images, 1 skipped (by 2 processes)"
    assert f"skipped image '300' ({photos / '300.png'}): not an image" in stderr
    assert main(["extract", str(photos), str(tmp_path / "one")]) == 1
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_process_is_made_up_for_by_any_number(photos: Path, tmp_path: Path) -> None:
    images = photos / "images.json"
    images.write_text(json.dumps({path.stem: path.name for path in sorted(photos.iterdir())}))
    assert main(["extract", str(images), str(tmp_path / "one")]) == 0
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HANG)
    out = tmp_path / "many"
    process = start(2, images, out, hook=hook)
    while not {"shard-00000.h5", "shard-00002.h5"} <= set(os.listdir(out) if out.exists() else ()):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(_process_of_rank(1, process.pid), signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode != 0
    kept = sorted(path.name for path in out.iterdir() if not path.name.startswith(".process-"))
    assert kept == ["manifest.json", "shard-00000.h5", "shard-00002.h5"]
    process = start(3, images, out)
    stdout, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert stdout.strip() == f"{out}: 600 images, 344 of them before, 0 skipped (by 3 processes)"
    assert contents(out) == contents(tmp_path / "one")


def _process_of_rank(rank: int, launcher: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = (pid for pid in children if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return int(found)
