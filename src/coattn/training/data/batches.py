"""Batches of questions and images of different lengths: what they hold, and how they are read.

The path of a batch: `order` draws its questions, `QuestionDataset` reads their texts, `make_batch` adds the features of
their images, and `BatchLoader` does both for each draw of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coattn.features.extract.pipeline import loading
from coattn.features.residency.features import Features
from coattn.features.residency.held import moved
from coattn.features.store.reader import FeatureStore

_AHEAD = 2  # batches that a thread has ready


class Batch(NamedTuple):
    """A batch of B questions, padded to its own longest question (T tokens) and image (R regions).

    Attributes:
        question: (B, T) int64 token ids, or (B, T, E) token embeddings as stored.
        question_mask: (B, T) bool, True = real.
        regions: (B, R, D) features as stored (float16 or float32), zeros at padding.
        region_mask: (B, R) bool, True = real.
        boxes: (B, R, 4) float32, x1 y1 x2 y2 in [0, 1]; None if the feature store does not know them.
        image_sizes: (B, 2) float32, width and height in pixels; None if one of them is unknown.
        images: (B,) int64, the place of each question's image in the store.
        target_rows: (S,) int64; the s-th score belongs to question `target_rows[s]` of the batch ...
        target_answers: (S,) int64 ... and to this answer of the vocabulary; or for a model that writes its answers
            (S, L), the ids of the answer's words and its end, zeros at padding;
        target_scores: (S,) float32, in (0, 1].
        positions: (B,) int64, the places of the questions in their split.
        divisor: the sum of the losses is divided by it; see `BatchPlan`.
    """

    question: Tensor
    question_mask: Tensor
    regions: Tensor
    region_mask: Tensor
    boxes: Tensor | None
    image_sizes: Tensor | None
    images: Tensor
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor
    divisor: float

    def to(self, device: torch.device) -> Batch:
        """The batch on a device. The copy to CUDA is asynchronous; tensors already there are not copied."""
        # Other devices could still be reading when the memory of this batch is reused.
        non_blocking = device.type == "cuda"
        return Batch._make(
            part.to(device, non_blocking=non_blocking) if isinstance(part, Tensor) and part.device != device else part
            for part in self
        )

    def images_once(self) -> tuple[Batch, Tensor | None]:
        """The batch with each image once, and the row (B,) of each question's image.

        The batch is returned unchanged, with None, where no image repeats, and on a GPU, which would have to wait for
        the number of images.
        """
        if self.images.device.type != "cpu":
            return self, None
        _, first, rows = np.unique(self.images.numpy(), return_index=True, return_inverse=True)
        if len(first) == len(rows):
            return self, None
        once = self._replace(
            regions=self.regions[first],
            region_mask=self.region_mask[first],
            boxes=None if self.boxes is None else self.boxes[first],
            image_sizes=None if self.image_sizes is None else self.image_sizes[first],
        )
        return once, torch.from_numpy(rows)

    def targets(self, num_answers: int) -> Tensor:
        """The soft scores as a dense (B, num_answers) float32 tensor, on the device of the batch."""
        dense = torch.zeros(len(self.positions), num_answers, device=self.target_scores.device)
        dense[self.target_rows, self.target_answers] = self.target_scores
        return dense


class Ragged(NamedTuple):
    """Rows of different lengths, concatenated: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def build(cls, rows: Sequence[Sequence[float]], dtype: type[np.generic]) -> Ragged:
        """Pack lists of numbers."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter(chain.from_iterable(rows), dtype, int(offsets[-1])), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64."""
        return np.diff(self.offsets)

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the values of some rows, one row after another, and the lengths of those rows."""
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum()), lengths

    def padded(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows (B, L, ...), L the longest length and at least 1, zeros at padding; and the mask (B, L)."""
        places, lengths = self.places(indices)
        mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
        padded = np.zeros((*mask.shape, *self.values.shape[1:]), self.values.dtype)
        padded[mask] = self.values[places]
        return padded, mask


class Draw(NamedTuple):
    """The rows of a batch: positions (B,) of questions in their split, images (B,) of the store, and its divisor.

    Everything random is in here already, so it does not matter who reads.
    """

    positions: np.ndarray
    images: np.ndarray
    divisor: float


class Texts(NamedTuple):
    """The fields of a `Batch` other than its images, under the same names."""

    question: Tensor
    question_mask: Tensor
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor


class QuestionEmbeddings(NamedTuple):
    """Given token embeddings: a store, and which of its entries belongs to each question."""

    store: FeatureStore
    entries: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) number of tokens of each question."""
        return self.store.lengths[self.entries]

    def padded(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings (B, T, E) of some questions, zeros at padding, and the mask (B, T)."""
        rows = self.store.read_padded(self.entries[positions])
        return rows.features, np.arange(rows.features.shape[1]) < rows.lengths[:, None]


class QuestionDataset(Dataset[Texts]):
    """The questions of a split. Its items are those of whole batches, read in one call; it may be pickled and forked.

    Args:
        questions: token ids, or given token embeddings.
        targets: the answers that are right, per question, by number or in words (`Batch.target_answers`), ...
        scores: ... and what each is worth (same offsets).
    """

    def __init__(self, questions: Ragged | QuestionEmbeddings, targets: Ragged, scores: np.ndarray) -> None:
        self.questions, self.targets, self.scores = questions, targets, scores

    def __len__(self) -> int:
        return len(self.targets.offsets) - 1

    def __getitem__(self, draw: Draw) -> Texts:
        question, question_mask = self.questions.padded(draw.positions)
        places, num_targets = self.targets.places(draw.positions)
        return Texts(
            question=torch.from_numpy(question.astype(np.int64) if question.dtype == np.int32 else question),
            question_mask=torch.from_numpy(question_mask),
            target_rows=torch.from_numpy(np.repeat(np.arange(len(draw.positions)), num_targets)),
            target_answers=torch.from_numpy(_trimmed(self.targets.values[places]).astype(np.int64)),
            target_scores=torch.from_numpy(self.scores[places]),
            positions=torch.from_numpy(draw.positions),
        )


def _trimmed(answers: np.ndarray) -> np.ndarray:
    """Answers by number (S,) as they are; answers in words (S, L) without the places that are padding in all."""
    if answers.ndim == 1:
        return answers
    return answers[:, : max(int((answers != 0).sum(axis=1).max(initial=1)), 1)]


def make_batch(draw: Draw, texts: Texts, features: Features) -> Batch:
    """Add to texts the regions of their images, on the device of `features`."""
    store = features.store
    lengths = store.lengths[draw.images]
    mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
    sizes = store.sizes[draw.images].astype(np.float32)
    parts = (
        mask,
        store.padded_boxes(draw.images) if store.has_boxes else None,
        sizes if sizes.all() else None,
    )
    region_mask, boxes, image_sizes = (
        None if part is None else moved(torch.from_numpy(part), features.device) for part in parts
    )
    assert region_mask is not None
    return Batch(
        **texts._asdict(),
        regions=features.batch(draw.images),
        region_mask=region_mask,
        boxes=boxes,
        image_sizes=image_sizes,
        images=torch.from_numpy(draw.images),
        divisor=draw.divisor,
    )


class BatchLoader:
    """The batches of a data set, epoch after epoch.

    It is not a DataLoader, so that Lightning does not change its order. Worker processes, if any, read only texts;
    features are gathered in this process. The memory of a batch is reused only when nothing refers to the batch or a
    part of it.

    Args:
        dataset: reads the texts of a batch.
        features: gathers the features of a batch.
        draws: returns the draws of the epoch that begins; called with the first batch of the epoch.
        length: number of batches of a whole epoch, whatever is left of the present one.
        num_workers: number of processes that read texts ahead; 0 reads them in this process.
        pin_memory: whether texts are read into page-locked memory, for copies to a GPU.
        start_method: "fork", "spawn", "forkserver", or None for the platform's default.
        ahead: whether a thread gathers features ahead of the step, which hides the time of reading, but not that of
            the copy to the GPU. The default is true if features go from the CPU to a GPU; a CPU that computes the
            steps has no core to spare.
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
        # Threads that start after torch's page-locking thread would otherwise compute with one thread.
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
                generator=torch.Generator(),  # the global one belongs to dropout
            )

    def __len__(self) -> int:
        return self._length

    def state_dict(self) -> dict[str, Any]:
        """An empty state. The method tells the trainer, which knows the place, that the loader can resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the empty state."""

    def __iter__(self) -> Iterator[Batch]:
        self._draws[:] = self._get_draws()
        if not self._ahead:
            yield from map(self._batch, self._items())
            return
        with loading(self._batch, self._items(), num_workers=1, ahead=_AHEAD, initializer=self._use_threads) as batches:
            yield from batches

    def _items(self) -> Iterator[tuple[Draw, Texts]]:
        """The texts of each batch; the features of the next batch are requested from the disk meanwhile."""
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
