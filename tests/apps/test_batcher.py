from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from coattn.apps.batcher import Batcher, OverloadedError
from coattn.apps.cache import ImageCache


def test_concurrent_items_share_batches_and_keep_their_order() -> None:
    batches: list[list[int]] = []
    blocked = threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        blocked.wait(10)
        batches.append(list(items))
        return [item * 10 for item in items]

    async def main() -> list[list[int]]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(run, executor, max_batch=4, max_waiting=100)
            requests = [asyncio.create_task(batcher.submit([n, n + 100])) for n in range(5)]
            await asyncio.sleep(0.05)
            blocked.set()
            return await asyncio.gather(*requests)

    assert asyncio.run(main()) == [[n * 10, (n + 100) * 10] for n in range(5)]
    assert sorted(item for batch in batches for item in batch) == sorted([*range(5), *range(100, 105)])
    assert max(map(len, batches)) == 4
    assert len(batches) <= 4


def test_a_bad_item_fails_alone() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three")
        return list(items)

    async def main() -> list[object]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(run, executor, max_batch=8, max_waiting=100)
            return await asyncio.gather(*(batcher.submit([n]) for n in range(6)), return_exceptions=True)

    results = asyncio.run(main())
    assert [result for result in results if not isinstance(result, Exception)] == [[0], [1], [2], [4], [5]]
    assert isinstance(results[3], ValueError)


def test_a_returned_error_leaves_the_batch_whole() -> None:
    sizes: list[int] = []

    def run(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        return [KeyError(item) if item == 1 else item for item in items]

    async def main() -> list[object]:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(run, executor, max_batch=8, max_waiting=100)
            all_wait = threading.Event()
            executor.submit(all_wait.wait, 10)
            requests = [asyncio.create_task(batcher.submit([n])) for n in range(3)]
            await asyncio.sleep(0)
            all_wait.set()
            return await asyncio.gather(*requests, return_exceptions=True)

    first, error, last = asyncio.run(main())
    assert (first, last, sizes) == ([0], [2], [3])
    assert isinstance(error, KeyError)


def test_more_than_may_wait_is_refused_whole() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(list, executor, max_batch=2, max_waiting=3)
            with pytest.raises(OverloadedError):
                await batcher.submit([1, 2, 3, 4])
            assert await batcher.submit([1, 2, 3]) == [1, 2, 3]

    asyncio.run(main())


def test_the_cache_is_bounded_by_number_and_by_bytes() -> None:
    cache = ImageCache(lambda image: image.nbytes, max_images=3, max_bytes=1000)
    for number in range(5):
        cache.put(str(number), np.zeros(100, np.uint8))
    assert len(cache) == 3
    assert cache.get("1") is None
    assert cache.get("2") is not None
    cache.put("5", np.zeros(100, np.uint8))  # 2 was used last, so 3 goes
    assert cache.get("3") is None
    assert cache.get("2") is not None
    cache.put("large", np.zeros(950, np.uint8))
    assert len(cache) == 1
    assert cache.num_bytes == 950
