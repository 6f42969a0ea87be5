"""Processes that share one command under torchrun or SLURM, through files in the folder that they write."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coattn._internal.files import parse_json
from coattn.features.store.manifest import SIGN

SECONDS_WITHOUT_SIGN = 60.0  # after which a process counts as lost
_SECONDS_BETWEEN_SIGNS = 5.0
_SECONDS_BETWEEN_LOOKS = 0.1


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process and number of processes, as torchrun sets them; otherwise 0 and 1."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def num_cores() -> int:
    """The cores that this process may use, at least 1: those of its machine, shared with the other processes there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def signs_of_life(folder: Path, rank: int, *, shown: bool = True) -> Iterator[Callable[[Any], None]]:
    """Rewrite a small file in `folder` every five seconds, so that other processes see that this one lives.

    Args:
        folder: the folder that all processes write.
        rank: number of this process.
        shown: False writes nothing, for a process that is alone.

    Yields:
        A function that takes the report (plain JSON) of this process, and writes it as its last sign.
    """
    path, ended = _file(folder, rank), threading.Event()

    def give_signs() -> None:
        count = 0
        while not ended.is_set():
            count += 1
            _write(path, {"sign": [os.getpid(), count]})
            ended.wait(_SECONDS_BETWEEN_SIGNS)

    thread = threading.Thread(target=give_signs, daemon=True)

    def report(value: Any) -> None:
        ended.set()
        thread.join()
        _write(path, {"report": value})

    if not shown:
        ended.set()
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()


def gather(
    folder: Path, world_size: int, is_complete: Callable[[int], bool], *, seconds: float = SECONDS_WITHOUT_SIGN
) -> list[Any]:
    """Wait until all other processes are done, and return their reports by rank. The first process calls this.

    Files and not a network carry the reports: the processes share the folder anyway, and none depends on another.

    Args:
        folder: the folder that all processes write.
        world_size: number of processes.
        is_complete: whether the share of a process is in the folder. A report without it is of an earlier command.
        seconds: time without a sign of life after which a process counts as lost. It is counted in looks at the sign,
            so that a pause of this process, which may be one of the whole machine, is not held against the others.

    Raises:
        ValueError: a process gave no sign of life for `seconds`; the message names it.
    """
    reports = []
    for rank in range(1, world_size):
        path = _file(folder, rank)
        last, waited = None, 0.0
        while not ("report" in (content := _read(path)) and is_complete(rank)):
            if content != last:
                last, waited = content, 0.0
            if waited > seconds:
                raise ValueError(
                    f"{folder}: process {rank} of {world_size} gave no sign of life for {seconds:.0f} seconds: it or "
                    "its machine was lost, or it does not share this folder; run the same command again to finish"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            waited += _SECONDS_BETWEEN_LOOKS
        reports.append(content["report"])
    for path in folder.glob(f"{SIGN}*"):
        path.unlink(missing_ok=True)
    return reports


def _file(folder: Path, rank: int) -> Path:
    return folder / f"{SIGN}{rank}.json"


def _write(path: Path, value: Any) -> None:
    """Write a file that readers see whole. A folder that was removed is an error of the process, not of this thread."""
    partial = path.with_suffix(".writing")
    try:
        partial.write_text(json.dumps(value), encoding="utf-8")
        partial.replace(path)
    except OSError:
        pass


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes(), path)  # opened anew each time: a network file system then looks again
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
