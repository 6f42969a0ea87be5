"""The processes that share one command under torchrun: which of them this is, and what they did together."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch

_LONGEST_WAIT = timedelta(days=365)  # the first to be done waits for the last, whose images may be larger


def rank_and_world_size() -> tuple[int, int]:
    """Which process this is, and of how many: what torchrun says, else 0 of 1."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def num_cores() -> int:
    """The cores that this process may count on, at least 1: those it may run on, shared with its machine's others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def gather(value: Any) -> list[Any] | None:
    """Bring together what each process has once all are done: a list by rank in the first process, None in the others.

    They meet here for the first time, so that none of them depends on another before.
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    values = [None] * world_size if rank == 0 else None
    torch.distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    torch.distributed.gather_object(value, values)
    torch.distributed.destroy_process_group()
    return values
