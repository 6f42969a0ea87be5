"""End the processes of a run, with a message, when one of them no longer responds.

If a process dies, the others learn it from an operation that fails, at once or after the 30 minutes of torch's time
limit, and such an error names no process. A frozen process and a host that is cut off are noticed only after that time.
Therefore each process counts upwards in a store that all can read. The first process watches all counts, the others
watch that of the first, and the first process looks after those that it has started.

A thread counts, so a long phase of a process (loading, evaluation, saving) is not mistaken for its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from coattn.features.extract.processes import SECONDS_WITHOUT_SIGN

_BEAT = 2.0  # seconds between two counts
_PATIENCE = 20.0  # seconds in which an operation fails after a process that this one has started has ended
_LOST = "coattn/lost"
# Errors of communication are plain RuntimeErrors that begin with a place in the library; one of gloo names none.
_LIBRARIES = ("gloo", "NCCL", "TCPStore", "Application timeout caused pair closure")


class Ranks(Callback):
    """Counts upwards for as long as this process lives, if there are several, and ends it if another one is lost.

    Args:
        advice: the command with which the user goes on after a process is lost.
        time_limit: seconds without a count after which a process is lost. Time in which this process is stopped itself
            does not count.

    Raises:
        ValueError: the time limit is shorter than three counts.
    """

    def __init__(self, advice: str, time_limit: float = SECONDS_WITHOUT_SIGN) -> None:
        if not time_limit >= 3 * _BEAT:
            raise ValueError(f"rank_time_limit {time_limit:g} is too short; it must be at least {3 * _BEAT:g} seconds")
        self.advice, self.time_limit = advice, time_limit
        self._ended = threading.Event()
        self._store: Any = None
        self._counts: dict[int, int] = {}  # of the ranks that this process watches, as last read
        self._silent: list[int] = []  # those of them that have not counted for the time limit
        self._told = 0  # the rank that another process has found to be lost, plus 1
        self._children: list[subprocess.Popen[bytes]] = []

    def attach(self, trainer: Trainer) -> None:
        """Let this process count as soon as `trainer` has connected it; the hook `setup` comes after a barrier."""
        connect = trainer.strategy.setup_environment

        def connect_and_count() -> None:
            connect()
            if trainer.world_size == 1 or self._store is not None:
                return
            self._store = torch.distributed.distributed_c10d._get_default_store()
            rank, self._size = trainer.global_rank, trainer.world_size
            if processes := getattr(trainer.strategy.launcher, "procs", None):
                self._children = list(processes)
                processes.clear()  # Lightning's observer of them would kill this process, and name no rank
            for work in (self._count, self._watch):
                threading.Thread(target=work, args=(rank,), name=f"{work.__name__} rank {rank}", daemon=True).start()

        trainer.strategy.setup_environment = connect_and_count  # type: ignore[method-assign]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count no further."""
        self._ended.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Count no further, and let the other processes end, unless one of them may be the reason."""
        if not isinstance(exception, RuntimeError):
            self._ended.set()

    @contextmanager
    def named_when_lost(self) -> Iterator[None]:
        """Name the processes that no longer respond if an operation of all processes fails inside.

        Raises:
            ValueError: with their ranks and the advice.
        """
        try:
            yield
        except RuntimeError as error:
            if self._store is None or not any(name in str(error) for name in _LIBRARIES):
                raise
            message = self._message(self._dead_children() or self._lost())
            self._ended.set()
            self._end_children()
            raise ValueError(f"{message} ({' '.join(str(error).split())[:200]})") from None

    def _count(self, rank: int) -> None:
        """Count, and read the counts of the watched ranks. An operation of the store may wait for a long time."""
        watched = range(self._size) if rank == 0 else (0,)
        while not self._ended.wait(_BEAT):
            try:
                self._store.add(_key(rank), 1)
                self._told = self._store.add(_LOST, 0)
                if self._silent:
                    self._tell(self._silent[0])
                self._counts = {other: self._store.add(_key(other), 0) for other in watched}
            except RuntimeError:  # the process that keeps the store is gone, and the counts no longer change
                return

    def _watch(self, rank: int) -> None:
        """End this process if another one is lost and no operation fails within `_PATIENCE`."""
        seen: dict[int, int] = {}
        silent: Counter[int] = Counter()  # how often a rank was found at the same count
        while not self._ended.wait(_BEAT):
            counts = self._counts
            for other in range(self._size) if rank == 0 else (0,):
                silent[other] = silent[other] + 1 if counts.get(other) == seen.get(other) else 0
            seen = counts
            self._silent = [other for other, times in silent.items() if times * _BEAT >= self.time_limit]
            lost = self._dead_children() or ([self._told - 1] if self._told else self._silent)
            if lost and not self._ended.wait(_PATIENCE):
                print(f"coattn: error: {self._message(lost)}", file=sys.stderr, flush=True)
                self._end_children()
                os._exit(2)  # the first thread waits for the process that is gone

    def _message(self, lost: list[int]) -> str:
        ranks = f"rank {', '.join(map(str, lost))} of {self._size}" if lost else "the connection between the ranks"
        return f"{ranks} no longer responds; {self.advice}"

    def _dead_children(self) -> list[int]:
        """The ranks of processes that this one has started and that have failed."""
        return [rank for rank, child in enumerate(self._children, start=1) if child.poll()]

    def _end_children(self) -> None:
        for child in self._children:
            child.kill()

    def _lost(self) -> list[int]:
        """The ranks that do not count any more; rank 0, which keeps the store, if the store does not answer in time."""
        found: list[list[int]] = []
        asking = threading.Thread(target=lambda: found.append(self._not_counting()), daemon=True)
        asking.start()
        asking.join(_PATIENCE)
        return found[0] if found else [0]

    def _not_counting(self) -> list[int]:
        """The ranks that do not count any more. The first to find out tells the others, whose error may come later."""
        if self._told:
            return [self._told - 1]
        try:
            before = [self._store.add(_key(rank), 0) for rank in range(self._size)]
            time.sleep(3 * _BEAT)
            after = [self._store.add(_key(rank), 0) for rank in range(self._size)]
            lost = [rank for rank, (one, two) in enumerate(zip(before, after, strict=True)) if one == two]
            if lost:
                self._tell(lost[0])
            time.sleep(2 * _BEAT)  # this process may keep the store
            return lost
        except RuntimeError:
            return [self._told - 1 if self._told else 0]  # rank 0 keeps the store

    def _tell(self, lost: int) -> None:
        """Tell all processes which rank is lost, unless one has told before."""
        self._store.add(_LOST, 0)
        self._store.compare_set(_LOST, "0", str(lost + 1))


def _key(rank: int) -> str:
    return f"coattn/counts/{rank}"
