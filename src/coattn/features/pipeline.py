"""Threads around a loop: what it needs is loaded before it asks, what it made is written after it has gone on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")


@contextmanager
def loading(load: Callable[[_T], _U], items: Iterable[_T], *, num_workers: int, ahead: int) -> Iterator[Iterator[_U]]:
    """Load items in order in `num_workers` threads, at most `ahead` before the one that is asked for."""

    def in_order() -> Iterator[_U]:
        waiting: deque[Future[_U]] = deque()
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(num_workers)
    try:
        yield in_order()
    finally:
        pool.shutdown(cancel_futures=True)


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
