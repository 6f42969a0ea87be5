"""Group the questions of concurrent requests into batches for one model.

A batch is whatever has arrived while the batch before it was computed; no timer makes a question wait for others.
"""

from __future__ import annotations

import asyncio
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
        run: from a batch of items to one result for each, in order, or what to raise for it; called in `executor`.
        executor: where `run` is called, one batch at a time.
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
        self._waiting: asyncio.Queue[tuple[_Item, asyncio.Future[_Result]]] = asyncio.Queue()
        self._max_waiting = max_waiting
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[_Item]) -> list[_Result]:
        """The results of `items`, each computed in whichever batch it falls into.

        Raises:
            OverloadedError: too many items are waiting; none of these is computed.
            Exception: whatever `run` raises or returns for one of these items.
        """
        if self._waiting.qsize() + len(items) > self._max_waiting:
            raise OverloadedError
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        for pair in zip(items, futures, strict=True):
            self._waiting.put_nowait(pair)
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:  # a request that timed out or failed: its other items need not be computed
                future.cancel()

    async def _work(self) -> None:
        """Compute batch after batch, without end."""
        loop = asyncio.get_running_loop()
        while True:
            pairs = [await self._waiting.get()]
            while len(pairs) < self._max_batch and not self._waiting.empty():
                pairs.append(self._waiting.get_nowait())
            pairs = [(item, future) for item, future in pairs if not future.done()]
            if not pairs:
                continue
            self._observe(len(pairs))
            results = await loop.run_in_executor(self._executor, self._outcomes, [item for item, _ in pairs])
            for (_, future), result in zip(pairs, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _outcomes(self, items: Sequence[_Item]) -> Sequence[_Result | Exception]:
        """The result of each item, or what was raised for it."""
        try:
            return self._run(items)
        except Exception as error:
            if len(items) == 1 or isinstance(error, ProcessLostError):
                return [error] * len(items)
            return [outcome for item in items for outcome in self._outcomes([item])]
