"""From questions and feature stores to batches: a data set that reads a whole batch at once, and its loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from coattn.features.store import FeatureStore, GatheredRows, require_same_extractor
from coattn.training.batches import Batch, Ragged, pad_rows


class Draw(NamedTuple):
    """What to read: positions (B,) of questions in their split, images (B,) of the store, and the batch's divisor.

    Everything random is in here already, so it does not matter which worker reads.
    """

    positions: np.ndarray
    images: np.ndarray
    divisor: float


class JoinedStore:
    """Several feature stores of one extractor, read as one: that of the first images, then that of the next.

    Raises:
        ValueError: the stores come from different extractors.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        for store in stores[1:]:
            require_same_extractor(
                stores[0].record, store.record, wanted_by=str(stores[0].path), found_in=str(store.path)
            )
        self.stores = stores
        self.path = ", ".join(str(store.path) for store in stores)
        self.record, self.dim = stores[0].record, stores[0].dim
        self.lengths = np.concatenate([store.lengths for store in stores])
        self._first = np.cumsum([0, *(len(store) for store in stores)])

    def __contains__(self, image_id: object) -> bool:
        return any(image_id in store for store in self.stores)

    def index(self, image_id: int | str) -> int:
        """Position of an image, in the first store that has it."""
        holders = (number for number, store in enumerate(self.stores) if image_id in store)
        number = next(holders, len(self.stores) - 1)
        return int(self._first[number]) + self.stores[number].index(image_id)

    def gather(self, indices: np.ndarray) -> GatheredRows:
        """Read several images by position, in the order asked."""
        lengths = self.lengths[indices]
        owner = np.searchsorted(self._first, indices, side="right") - 1
        parts, places = [], []
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            parts.append(self.stores[number].gather(indices[mine] - self._first[number]))
            places.append(mine)
        # Rows of one store lie together now: find where each image went, and bring them back in order.
        order = np.argsort(np.concatenate(places))
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        offsets = np.cumsum([0, *joined[3]])
        rows, _ = Ragged(np.arange(offsets[-1]), offsets).take(order)
        return GatheredRows(joined[0][rows], joined[1][rows], joined[2][order], lengths)

    def statistics(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the feature rows of some images, (D,) float32 each."""
        owner = np.searchsorted(self._first, indices, side="right") - 1
        used = np.unique(owner)
        counts = np.array([self.lengths[indices[owner == number]].sum() for number in used])
        weights = (counts / counts.sum())[:, None]
        found = [self.stores[number].statistics(indices[owner == number] - self._first[number]) for number in used]
        means, stds = (np.array(values, np.float64) for values in zip(*found, strict=True))
        mean = (weights * means).sum(axis=0)
        variance = (weights * (stds**2 + (means - mean) ** 2)).sum(axis=0)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def asset(self, name: str) -> Any:
        """A file kept with one of the stores; None if there is none."""
        return next((asset for store in self.stores if (asset := store.asset(name)) is not None), None)


class QuestionEmbeddings(NamedTuple):
    """Given token embeddings: a store, and which of its entries belongs to each question."""

    store: FeatureStore
    entries: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) number of tokens of each question."""
        return self.store.lengths[self.entries]

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of some questions behind one another, and their lengths."""
        rows = self.store.gather(self.entries[positions])
        return rows.features, rows.lengths


class QuestionDataset(Dataset[Batch]):
    """The questions of a split. Its items are whole batches, read in one call; it may be pickled and forked.

    Args:
        questions: token ids, or given token embeddings.
        targets: the answers that are right, per question, by number or in words (`Batch.target_answers`), ...
        scores: ... and what each is worth (same offsets).
        features: where the regions come from.
    """

    def __init__(
        self,
        questions: Ragged | QuestionEmbeddings,
        targets: Ragged,
        scores: np.ndarray,
        features: FeatureStore | JoinedStore,
    ) -> None:
        self.questions, self.targets, self.scores, self.features = questions, targets, scores, features

    def __len__(self) -> int:
        return len(self.targets.offsets) - 1

    def __getitem__(self, draw: Draw) -> Batch:
        tokens, num_tokens = self.questions.take(draw.positions)
        if tokens.dtype == np.int32:
            tokens = tokens.astype(np.int64)
        question, question_mask = pad_rows(torch.from_numpy(tokens), torch.from_numpy(num_tokens))
        rows = self.features.gather(draw.images)
        num_regions = torch.from_numpy(rows.lengths)
        regions, region_mask = pad_rows(torch.from_numpy(rows.features), num_regions)
        boxes, _ = pad_rows(torch.from_numpy(rows.boxes), num_regions)
        answers, num_targets = self.targets.take(draw.positions)
        scores, _ = Ragged(self.scores, self.targets.offsets).take(draw.positions)
        return Batch(
            question=question,
            question_mask=question_mask,
            regions=regions,
            region_mask=region_mask,
            boxes=boxes,
            image_sizes=torch.from_numpy(rows.sizes.astype(np.float32)),
            target_rows=torch.from_numpy(np.repeat(np.arange(len(draw.positions)), num_targets)),
            target_answers=torch.from_numpy(_trimmed(answers).astype(np.int64)),
            target_scores=torch.from_numpy(scores),
            positions=torch.from_numpy(draw.positions),
            divisor=draw.divisor,
        )


def _trimmed(answers: np.ndarray) -> np.ndarray:
    """Answers by number (S,) as they are; answers in words (S, L) without the places that are padding in all."""
    if answers.ndim == 1:
        return answers
    return answers[:, : max(int((answers != 0).sum(axis=1).max(initial=1)), 1)]


class BatchLoader:
    """Batches of a data set, again for each epoch. What to draw is asked for only with the first batch of an epoch.

    It is no DataLoader, so that Lightning leaves its order alone; there is one inside, with its workers kept alive.

    Args:
        dataset: reads a batch.
        draws: gives the draws of the epoch that begins.
        length: batches of a whole epoch, whatever is left of the present one.
        num_workers: processes that read ahead; 0 reads in this one, which is fastest for small features.
        pin_memory: page-locked tensors, for copies to a GPU.
        start_method: "fork", "spawn", "forkserver", or None for the platform's.
    """

    def __init__(
        self,
        dataset: QuestionDataset,
        draws: Callable[[], list[Draw]],
        length: int,
        *,
        num_workers: int,
        pin_memory: bool,
        start_method: str | None,
    ) -> None:
        self._get_draws, self._length = draws, length
        self._draws: list[Draw] = []
        self._loader = DataLoader(
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
        yield from self._loader


def _unchanged(batch: Batch) -> Batch:
    return batch
