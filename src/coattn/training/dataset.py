"""From questions and feature stores to batches: a data set that reads a whole batch at once, and its loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from coattn.features.joined import JoinedStore
from coattn.features.store import FeatureStore
from coattn.training.batches import Batch, Ragged, pad_rows


class Draw(NamedTuple):
    """What to read: positions (B,) of questions in their split, images (B,) of the store, and the batch's divisor.

    Everything random is in here already, so it does not matter which worker reads.
    """

    positions: np.ndarray
    images: np.ndarray
    divisor: float


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
