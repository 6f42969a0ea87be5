"""Overlap loading, computing and writing with background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

_T = TypeVar("_T")
_U = TypeVar("_U")

MOST_STREAMS = 4  # each holds a batch in memory


@contextmanager
def loading(
    load: Callable[[_T], _U],
    items: Iterable[_T],
    *,
    num_workers: int,
    ahead: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Iterator[_U]]:
    """Load items in order in `num_workers` threads, at most `ahead` items before they are needed."""

    def in_order() -> Iterator[_U]:
        waiting: deque[Future[_U]] = deque()
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(num_workers, initializer=initializer)
    try:
        yield in_order()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def computing(compute: Callable[[_T], _U], items: Iterable[_T], *, parallel: bool) -> Iterator[Iterator[_U]]:
    """Compute items in order in a thread; if `parallel`, up to four at once, which share the threads of torch.

    Several batches on one core each finish earlier than the same batches one after another on all cores: no core waits
    for the slowest part of each operation while other threads decode images.
    """
    threads = torch.get_num_threads()
    streams = min(threads, MOST_STREAMS) if parallel else 1
    share = partial(torch.set_num_threads, threads // streams)
    try:
        with loading(compute, items, num_workers=streams, ahead=streams, initializer=share) as computed:
            yield computed
    finally:
        torch.set_num_threads(threads)  # new threads begin with the number that was set last


@contextmanager
def in_background(*, ahead: int) -> Iterator[Callable[[Callable[[], None]], Future[None]]]:
    """Run tasks in a thread, in order. Submitting waits while more than `ahead` tasks are pending.

    After a task fails, no other is run. Its error is raised when a later task is submitted, or at the end.
    """
    waiting: deque[Future[None]] = deque()

    def submit(task: Callable[[], None]) -> Future[None]:
        future = pool.submit(_after, waiting[-1] if waiting else None, task)
        waiting.append(future)
        if len(waiting) > ahead:
            waiting.popleft().result()
        return future

    with ThreadPoolExecutor(1) as pool:
        yield submit
        while waiting:
            waiting.popleft().result()


def _after(before: Future[None] | None, task: Callable[[], None]) -> None:
    if before is not None:
        before.result()
    task()
