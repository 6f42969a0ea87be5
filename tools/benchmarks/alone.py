"""A part, or one row of it, in a process of its own: with all the memory, and saying how much of it it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.context import Context, Row

_BENCH = Path(__file__).resolve().parents[1] / "bench.py"


def run_bench(context: Context, part: str, *options: str) -> None:
    """`tools/bench PART OPTIONS` with the same data; ends this program if that fails."""
    command = _command(context, part, options)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"{' '.join(command)} failed ({code})")


def run_alone(context: Context, part: str, case: str, implementation: str) -> Row:
    """What `run_once` of a part returns for a row, and the most memory that the process had at once, "peak GB"."""
    command = _command(context, part, ("--alone", case, implementation))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(context: Context, part: str, options: tuple[str, ...]) -> list[str]:
    chosen = [part, "--device", context.device, "--folder", str(context.folder), *options]
    return [sys.executable, str(_BENCH), *chosen, *(["--quick"] if context.quick else [])]
