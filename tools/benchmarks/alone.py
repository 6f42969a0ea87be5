"""One row in a process of its own, which says how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.context import Context, Row

_BENCH = Path(__file__).resolve().parents[1] / "bench.py"


def run_alone(context: Context, part: str, case: str, implementation: str) -> Row:
    """What `run_once` of a part returns for a row, and the most memory that the process had at once, "peak GB"."""
    command = [sys.executable, str(_BENCH), part, "--device", context.device, "--folder", str(context.folder)]
    command += ["--alone", case, implementation, *(["--quick"] if context.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
