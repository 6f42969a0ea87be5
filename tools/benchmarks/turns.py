"""Processes that take turns: askers of different builds and packages, and whole commands with their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import alternate

_ASKED = Path(__file__).with_name("asked.py")


def environment(build: Path | None = None) -> dict[str, str]:
    """The environment of a process that imports `coattn` from another build, given by its root, or from this one.

    Modules are compiled once, as pip does when it installs them, also where PYTHONDONTWRITEBYTECODE is set.
    """
    path = {} if build is None else {"PYTHONPATH": str(build / "src")}
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return os.environ | path | quiet | {"PYTHONDONTWRITEBYTECODE": ""}


def asker_command(kind: str, *arguments: Any) -> list[str]:
    """The command of an asker, see `asked.py`."""
    return [sys.executable, "-P", str(_ASKED), kind, *map(str, arguments)]


@contextmanager
def asker(command: Sequence[str], env: Mapping[str, str], repeats: int) -> Iterator[Any]:
    """A process of `asked.py`, as a function that asks `repeats` times and returns the seconds of one answer.

    Raises:
        RuntimeError: the process ended.
    """
    with subprocess.Popen(command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(command)} failed")

        def ask() -> float:
            process.stdin.write(f"{repeats}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return float(process.stdout.readline())  # type: ignore[union-attr]

        try:
            yield ask
        finally:
            process.stdin.close()


def in_turns(
    askers: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], rounds: int, *, repeats: int = 1
) -> dict[str, list[float]]:
    """The seconds of one answer of each asker, given by command and environment; `repeats` answers are a turn."""
    with ExitStack() as stack:
        runs = {name: stack.enter_context(asker(*given, repeats)) for name, given in askers.items()}
        return alternate(runs, rounds)


def cost(command: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command that has to succeed.

    Raises:
        RuntimeError: it failed.
    """
    launched = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, env=dict(env), check=True, stdout=subprocess.PIPE, text=True)
    code, seconds, megabytes = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{' '.join(command)} failed ({code})")
    return seconds, megabytes


# In a small process between: the peak of a child counts the memory of its parent at the start.
_LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - start
print(json.dumps((code, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)))
"""
