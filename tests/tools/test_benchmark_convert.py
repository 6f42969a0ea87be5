from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_convert.py"


def test_it_prints_a_ratio():
    command = [sys.executable, str(TOOL), "--megabytes", "3", "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ratio = re.search(r"^ratio +([\d.]+)", done.stdout, re.MULTILINE)
    assert ratio is not None
    assert float(ratio.group(1)) > 0
