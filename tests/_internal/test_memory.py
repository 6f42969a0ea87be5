from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coattn._internal import process_memory as memory

CODE = """
from coattn._internal.process_memory import peak_of_process
before = peak_of_process()
taken = b"x" * 200_000_000
during = peak_of_process()
del taken
print(before, during, peak_of_process())
"""


def test_the_peak_is_that_of_this_process_and_stays() -> None:
    ours = b"x" * 500_000_000
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    before, during, after = map(float, done.stdout.split())
    assert before < len(ours) / 1e9, "what the parent process has does not count"
    assert during - before == pytest.approx(0.2, abs=0.01)
    assert after == pytest.approx(during, abs=0.01)


def test_other_systems_say_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert memory.peak_of_process() > 0
    monkeypatch.setattr(memory, "resource", None)
    assert memory.peak_of_process() is None
