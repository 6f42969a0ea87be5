"""How a run ends early: by a signal, or because one of its processes no longer responds.

On a signal, training stops after a step with a checkpoint; everything else stops at once, with a non-zero status.

If a process dies, the others learn it from an operation that fails, at once or after a time limit, and such an error
names no process. Therefore each process counts upwards in a store that all can read, and the first process looks after
those that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_BEAT = 2.0  # seconds between two counts
_PATIENCE = 20.0  # seconds in which an operation fails after a process that this one has started has ended
_LOST = "coattn/lost"


# Errors of communication are plain RuntimeErrors that begin with a place in the library; one of gloo names none.
_LIBRARIES = ("gloo", "NCCL", "TCPStore", "Application timeout caused pair closure")


class Stopped(SystemExit):
    """A signal ended the command. The exit status is 128 plus its number, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Signals:
    """The signal that asked this process to stop.

    Attributes:
        received: its number, or 0.
        deferred: whether a signal is only noted, because training looks at `received` after each step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal while training runs, else end the command. A second Ctrl-C always ends it."""
        again, self.received = self.received, number
        if not self.deferred or (again and number == signal.SIGINT):
            raise Stopped(number)
        if not again:
            hint = "; press Ctrl-C again to quit at once" if number == signal.SIGINT else ""
            print(f"\ncoattn: saving after this step{hint}", file=sys.stderr, flush=True)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside; one that is ignored (nohup) stays ignored, and other threads than the first leave
        all as they are."""
        self.received, self.deferred = 0, False
        previous = {}
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
            for number in numbers:
                if signal.getsignal(number) != signal.SIG_IGN:
                    previous[number] = signal.signal(number, self.handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


SIGNALS = Signals()


class Ranks(Callback):
    """Counts upwards for as long as this process lives, if there are several.

    Args:
        advice: the command with which the user goes on after a process is lost.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._ended = threading.Event()
        self._store: Any = None
        self._told = 0  # the rank that another process has found to be lost, plus 1
        self._children: list[subprocess.Popen[bytes]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count; the processes are connected by now."""
        if trainer.world_size > 1 and self._store is None:
            self._store = torch.distributed.distributed_c10d._get_default_store()
            rank, self._size = trainer.global_rank, trainer.world_size
            if processes := getattr(trainer.strategy.launcher, "procs", None):
                self._children = list(processes)
                processes.clear()  # Lightning's observer of them would kill this process, and name no rank
            threading.Thread(target=self._count, args=(rank,), name="count of this rank", daemon=True).start()

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
        while not self._ended.wait(_BEAT):
            try:
                self._store.add(_key(rank), 1)
                self._told = self._store.add(_LOST, 0)
            except RuntimeError:  # the process that keeps the store is gone; `_lost` says so
                return
            if (dead := self._dead_children()) and not self._ended.wait(_PATIENCE):
                print(f"coattn: error: {self._message(dead)}", file=sys.stderr, flush=True)
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
            if lost and not self._store.add(_LOST, 0):
                self._store.add(_LOST, lost[0] + 1)
            time.sleep(2 * _BEAT)  # this process may keep the store
            return lost
        except RuntimeError:
            return [self._told - 1 if self._told else 0]  # rank 0 keeps the store


def _key(rank: int) -> str:
    return f"coattn/counts/{rank}"
