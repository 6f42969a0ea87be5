"""Batches in the order of a plan: texts by workers or here, features from wherever they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from coattn.features.extract.pipeline import loading
from coattn.features.residency.features import Features
from coattn.training.batches import Batch, Draw, Texts, make_batch
from coattn.training.dataset import QuestionDataset

_AHEAD = 2  # batches that a thread has ready


class BatchLoader:
    """Batches of a data set, again for each epoch. What to draw is asked for only with the first batch of an epoch.

    It is no DataLoader, so that Lightning leaves its order alone; for workers there is one inside, kept alive. They
    read texts alone: features are gathered in this process. A batch may be kept for as long as one likes: its memory
    goes to another only when nobody holds the batch or a part of it.

    Args:
        dataset: reads the texts of a batch.
        features: gathers the features of a batch.
        draws: returns the draws of the epoch that begins.
        length: batches of a whole epoch, whatever is left of the present one.
        num_workers: processes that read texts ahead; 0 reads them in this one.
        pin_memory: page-locked texts, for copies to a GPU.
        start_method: "fork", "spawn", "forkserver", or None for the platform's.
        ahead: gather features in a thread, ahead of the step; if not given, where they go from the CPU to a GPU. (Where
            the CPU computes the step it has no core to spare, and the two would only hold each other up.) That hides
            the reading from the disk and the gathering in RAM, not the copy: it has its turn on the GPU after the steps
            that were asked for before it.
    """

    def __init__(
        self,
        dataset: QuestionDataset,
        features: Features,
        draws: Callable[[], list[Draw]],
        length: int,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
        ahead: bool | None = None,
    ) -> None:
        self._dataset, self._features, self._get_draws, self._length = dataset, features, draws, length
        self._ahead = features.reads_host if ahead is None else ahead
        # What later threads begin with is 1 as soon as torch's own thread for page-locked memory has begun.
        self._use_threads = partial(torch.set_num_threads, torch.get_num_threads())
        self._draws: list[Draw] = []
        self._texts: DataLoader[Texts] | None = None
        if num_workers or pin_memory:
            self._texts = DataLoader(
                dataset,
                batch_size=None,  # an item is a batch already
                sampler=self._draws,
                num_workers=num_workers,
                collate_fn=_unchanged,  # type: ignore[arg-type]
                pin_memory=pin_memory,
                multiprocessing_context=start_method if num_workers else None,
                persistent_workers=num_workers > 0,
                generator=torch.Generator(),  # or it would draw from the global one, which dropout uses
            )

    def __len__(self) -> int:
        return self._length

    def state_dict(self) -> dict[str, Any]:
        """Nothing, for the trainer knows where it is. That there is this method tells it that a run may go on."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back nothing."""

    def __iter__(self) -> Iterator[Batch]:
        self._draws[:] = self._get_draws()
        if not self._ahead:
            yield from map(self._batch, self._items())
            return
        with loading(self._batch, self._items(), num_workers=1, ahead=_AHEAD, initializer=self._use_threads) as batches:
            yield from batches

    def _items(self) -> Iterator[tuple[Draw, Texts]]:
        """The texts of each batch; the system begins to read the features of the next one meanwhile."""
        draws = list(self._draws)
        texts = map(self._dataset.__getitem__, draws) if self._texts is None else iter(self._texts)
        for number, item in enumerate(zip(draws, texts, strict=True)):
            for draw in draws[number + 1 : number + 2]:
                self._features.expect(draw.images)
            yield item

    def _batch(self, item: tuple[Draw, Texts]) -> Batch:
        return make_batch(*item, self._features)


def _unchanged(texts: Texts) -> Texts:
    return texts
