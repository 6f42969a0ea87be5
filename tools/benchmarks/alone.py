"""Measure a part, or one row of it, in a separate process, and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.context import Context, Row
from benchmarks.report import ROOT


def run_bench(context: Context, part: str, *options: str) -> None:
    """`tools/bench PART OPTIONS` with the same data; ends this program if that fails."""
    command = _command(context, part, options)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"{' '.join(command)} failed ({code})")


def run_alone(context: Context, part: str, case: str, implementation: str, *, root: Path = ROOT) -> Row:
    """Measure a row in its own process: the result of `run_once` of the part, and its peak memory, "peak GB".

    `root` is the folder of the code, this one or a worktree of another commit.
    """
    command = _command(context, part, ("--alone", case, implementation), root)
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(context: Context, part: str, options: tuple[str, ...], root: Path = ROOT) -> list[str]:
    against = [] if context.against is None else ["--against", str(context.against)]
    chosen = [part, "--device", context.device, "--folder", str(context.folder), *against, *options]
    return [sys.executable, str(root / "tools" / "bench.py"), *chosen, *(["--quick"] if context.quick else [])]
