"""Group the questions of concurrent requests into batches for one model.

A batch is whatever has arrived while the batch before it was computed; no timer makes a question wait for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from .process import ProcessLostError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class OverloadedError(Exception):
    """More questions are waiting than the server accepts."""


class Batcher(Generic[_Item, _Result]):
    """Runs a function over batches of items that arrive one by one.

    If the function raises for a batch, it runs again for each item, so that one bad item fails alone.

    Args:
        run: from a batch of items to one result for each, in order, or what to raise for it.
        executor: has one thread, in which `run` and `observe` are called.
        max_batch: the most items of a batch.
        max_waiting: the most items that may wait for their batch.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[_Item]], Sequence[_Result | Exception]],
        executor: Executor,
        *,
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._run, self._executor, self._max_batch, self._observe = run, executor, max_batch, observe
        self._waiting: deque[tuple[_Item, asyncio.Future[_Result]]] = deque()
        self._max_waiting = max_waiting

    async def submit(self, items: Sequence[_Item]) -> list[_Result]:
        """The results of `items`, each computed in whichever batch it falls into.

        Raises:
            OverloadedError: too many items are waiting; none of these is computed.
            Exception: whatever `run` raises or returns for one of these items.
        """
        if len(self._waiting) + len(items) > self._max_waiting:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        # As many batches as these items may need. The thread fills each when it begins it, without asking the event
        # loop, so that no time is lost between two batches; those that find no item left end at once.
        for _ in range(0, len(items), self._max_batch):
            self._executor.submit(self._compute, loop)
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:  # a request that timed out or failed: its other items need not be computed
                future.cancel()

    def _compute(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute a batch of the items that wait."""
        pairs: list[tuple[_Item, asyncio.Future[_Result]]] = []
        while self._waiting and len(pairs) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                pairs.append((item, future))
        if pairs:
            self._observe(len(pairs))
            results = self._outcomes([item for item, _ in pairs])
            loop.call_soon_threadsafe(_set_results, [future for _, future in pairs], results)

    def _outcomes(self, items: Sequence[_Item]) -> Sequence[_Result | Exception]:
        """The result of each item, or what was raised for it."""
        try:
            return self._run(items)
        except Exception as error:
            if len(items) == 1 or isinstance(error, ProcessLostError):
                return [error] * len(items)
            return [outcome for item in items for outcome in self._outcomes([item])]


def _set_results(futures: Sequence[asyncio.Future[_Result]], results: Sequence[_Result | Exception]) -> None:
    """Give each future its result, or the exception to raise."""
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
