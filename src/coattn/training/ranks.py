"""Processes that train together: which of them no longer responds.

If a process dies, the others learn it from an operation that fails, at once or after a time limit, and such an error
names no process. Therefore each process counts upwards in a store that all can read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

_BEAT = 2.0  # seconds between two counts
_LIBRARIES = ("gloo", "NCCL", "TCPStore")  # their errors are plain RuntimeErrors that begin with a place in the library


class Ranks(Callback):
    """Counts upwards for as long as this process lives, if there are several."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._store: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count; the processes are connected by now."""
        if trainer.world_size > 1 and self._store is None:
            self._store = torch.distributed.distributed_c10d._get_default_store()
            rank, self._size = trainer.global_rank, trainer.world_size
            threading.Thread(target=self._count, args=(rank,), name="count of this rank", daemon=True).start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count no further."""
        self._ended.set()

    @contextmanager
    def named_when_lost(self, advice: str) -> Iterator[None]:
        """Name the processes that no longer respond if an operation of all processes fails inside.

        Raises:
            ValueError: with their ranks and the advice.
        """
        try:
            yield
        except RuntimeError as error:
            if self._store is None or not any(name in str(error) for name in _LIBRARIES):
                raise
            lost = self._lost()
            ranks = f"rank {', '.join(map(str, lost))} of {self._size}" if lost else "the connection between the ranks"
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{ranks} no longer responds; {advice} ({reason})") from None

    def _count(self, rank: int) -> None:
        while not self._ended.wait(_BEAT):
            try:
                self._store.add(_key(rank), 1)
            except RuntimeError:  # the process that keeps the store is gone; `_lost` says so
                return

    def _lost(self) -> list[int]:
        """The ranks that do not count any more."""
        try:
            before = [self._store.add(_key(rank), 0) for rank in range(self._size)]
            time.sleep(3 * _BEAT)
            after = [self._store.add(_key(rank), 0) for rank in range(self._size)]
        except RuntimeError:
            return [0]  # it keeps the store
        return [rank for rank, (one, two) in enumerate(zip(before, after, strict=True)) if one == two]


def _key(rank: int) -> str:
    return f"coattn/counts/{rank}"
