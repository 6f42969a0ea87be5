"""Threads around a loop: what it needs is made before it asks, what it made is written after it has gone on."""

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


_MOST_STREAMS = 4  # each has a batch in memory


@contextmanager
def loading(
    load: Callable[[_T], _U],
    items: Iterable[_T],
    *,
    num_workers: int,
    ahead: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Iterator[_U]]:
    """Load items in order in `num_workers` threads, at most `ahead` before the one that is asked for."""

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
    """Compute items in order in a thread; where `parallel`, up to four at once, which share the threads of torch.

    Several batches with a core each are done sooner than one after another on all cores: nothing waits for the slowest
    part of every operation, least of all where other threads decode images meanwhile.
    """
    threads = torch.get_num_threads()
    streams = min(threads, _MOST_STREAMS) if parallel else 1
    share = partial(torch.set_num_threads, threads // streams)
    try:
        with loading(compute, items, num_workers=streams, ahead=streams, initializer=share) as computed:
            yield computed
    finally:
        torch.set_num_threads(threads)  # what one thread sets is what later ones begin with


@contextmanager
def in_background(*, ahead: int) -> Iterator[Callable[[Callable[[], None]], Future[None]]]:
    """Run tasks in a thread, in order. To give one more than `ahead` is to wait; after one that fails none is run.

    An error of a task comes out of giving a later one, or of the end.
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
