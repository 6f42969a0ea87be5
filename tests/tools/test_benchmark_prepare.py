from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_prepare.py"


def test_it_prints_time_and_memory():
    command = [sys.executable, str(TOOL), "--scale", "0.001"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "train: 444 questions on 83 images" in done.stdout
    assert re.search(r"^vqa_accuracy +214 ", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^seconds +[\d.]+", done.stdout, re.MULTILINE)) == 2
    peak = re.search(r"^peak +([\d.]+) GB", done.stdout, re.MULTILINE)
    assert peak is not None
    assert 0 < float(peak.group(1)) < 1
