"""Peak memory of one implementation alone: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.context import Context

BENCH = Path(__file__).resolve().parents[1] / "bench.py"


def peak_in_subprocess(context: Context, part: str, case: str, implementation: str) -> float:
    """GB that a process takes which does nothing but one measurement of one row of a part."""
    command = [sys.executable, str(BENCH), part, "--device", context.device, "--folder", str(context.folder)]
    command += ["--alone", case, implementation, *(["--quick"] if context.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["peak GB"]
