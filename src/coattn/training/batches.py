"""Batches: which questions come together, and how their ragged rows become tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ORDER, _FLIPS = 0, 1  # what a stream of random numbers is for


class Batch(NamedTuple):
    """A batch of B questions, padded to its own longest question (T tokens) and image (R regions).

    Attributes:
        question: (B, T) int64 token ids, or (B, T, E) token embeddings as stored.
        question_mask: (B, T) bool, True = real.
        regions: (B, R, D) features as stored (float16 or float32), zeros at padding.
        region_mask: (B, R) bool, True = real.
        boxes: (B, R, 4) float32, x1 y1 x2 y2 in [0, 1].
        image_sizes: (B, 2) float32, width and height in pixels.
        target_rows: (S,) int64; the s-th score belongs to question `target_rows[s]` of the batch ...
        target_answers: (S,) int64 ... and to this answer of the vocabulary; or for a model that writes its answers
            (S, L), the ids of the answer's words and its end, zeros at padding;
        target_scores: (S,) float32, in (0, 1].
        positions: (B,) int64, the places of the questions in their split.
        divisor: what the sum of the losses is divided by; see `BatchPlan`.
    """

    question: Tensor
    question_mask: Tensor
    regions: Tensor
    region_mask: Tensor
    boxes: Tensor
    image_sizes: Tensor
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor
    divisor: float

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, which on CUDA nothing waits for; what is there already is not copied."""
        # Other devices could still be reading when the memory of this batch is lent to the next one.
        non_blocking = device.type == "cuda"
        return Batch._make(
            part.to(device, non_blocking=non_blocking) if isinstance(part, Tensor) and part.device != device else part
            for part in self
        )

    def targets(self, num_answers: int) -> Tensor:
        """The soft scores as a dense (B, num_answers) float32 tensor, on the device of the batch."""
        dense = torch.zeros(len(self.positions), num_answers, device=self.target_scores.device)
        dense[self.target_rows, self.target_answers] = self.target_scores
        return dense


class Ragged(NamedTuple):
    """Rows of different lengths behind one another: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def build(cls, rows: Sequence[Sequence[float]], dtype: type[np.generic]) -> Ragged:
        """Pack lists of numbers."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.array([value for row in rows for value in row], dtype), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64."""
        return np.diff(self.offsets)

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of some rows are, one row after another, and the lengths of those rows."""
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


def random_integers(count: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """`count` uint64, the same for these numbers on every machine and in every release of numpy.

    Numpy promises a stable stream for its bit generators and seed sequences only, not for `permutation` or `random`.
    """
    return np.random.PCG64(np.random.SeedSequence([seed, epoch, purpose])).random_raw(count)


def draw_flips(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """(count,) bool: which questions see their image mirrored in this epoch."""
    return random_integers(count, seed, epoch, _FLIPS) >> np.uint64(63) == 1


@dataclass(frozen=True)
class BatchPlan:
    """Which questions make up which batch: a pure function of the sizes, the numbers below, and the epoch.

    A *batch* is what one training step sees on all devices together; `accumulate` of them make one optimiser step. The
    plan is made of whole optimiser steps, as equal in size as possible: cutting one into several batches, or sharing a
    batch among devices, changes which questions are computed together but not which step they belong to. Their losses
    are summed and divided by `divisor`, so that the gradient of the step is the mean over its questions however it was
    cut (Lightning divides by `accumulate`, and averages over devices).

    Args:
        regions: (N,) number of regions of each question's image.
        tokens: (N,) number of tokens of each question.
        batch_size: most questions in a batch.
        seed: of the order.
        accumulate: batches per optimiser step.
        pool: so many optimiser steps are filled together with questions of like size, to save padding; 1 mixes sizes.
        images: (N,) the image of each question, to have the questions of an image come together, or None. An image on a
            cut between two batches is in both. Questions are then not sorted by tokens.

    Raises:
        ValueError: there are no questions, or a number is not positive.
    """

    regions: np.ndarray
    tokens: np.ndarray
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    pool: int = 16
    images: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.regions) == 0 or len(self.regions) != len(self.tokens):
            raise ValueError(f"cannot plan batches of {len(self.regions)} images and {len(self.tokens)} questions")
        for name in ("batch_size", "accumulate", "pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if (smallest := len(self.regions) // self.num_steps) < self.accumulate:
            raise ValueError(
                f"an optimiser step of {smallest} questions cannot be cut into {self.accumulate} accumulated batches; "
                f"raise batch_size (now {self.batch_size}), or lower accumulate_grad_batches"
            )

    @property
    def num_steps(self) -> int:
        """Optimiser steps per epoch."""
        return math.ceil(len(self.regions) / (self.batch_size * self.accumulate))

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.num_steps * self.accumulate

    def epoch(self, epoch: int) -> list[tuple[np.ndarray, float]]:
        """The batches of an epoch in order: the questions of each, and its divisor. Every question comes once."""
        random = random_integers(len(self.regions) + self.num_steps, self.seed, epoch, _ORDER)
        keys = random[self.num_steps :]
        if self.images is not None:
            _, first, image = np.unique(self.images, return_index=True, return_inverse=True)
            keys = keys[first][image]
        shuffled = np.argsort(keys, kind="stable")
        steps = list(self._fill(shuffled))
        return [
            (batch, len(steps[place]) / self.accumulate)
            for place in np.argsort(random[: self.num_steps], kind="stable")
            for batch in np.array_split(steps[place], self.accumulate)
        ]

    def _fill(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Cut an order of all questions into optimiser steps of like size."""
        bounds = np.arange(self.num_steps + 1) * len(order) // self.num_steps
        for first in range(0, self.num_steps, self.pool):
            inside = bounds[first : first + self.pool + 1]
            yield from self._sorted(order[inside[0] : inside[-1]], inside[1:-1] - inside[0])

    def _sorted(self, pool: np.ndarray, cuts: np.ndarray) -> list[np.ndarray]:
        """Sort questions by size and cut them: by regions into slabs, and each slab by tokens.

        Few slabs save padding of questions, many that of images: the number is tried out that leaves the least in all.
        """
        if not len(cuts):
            return [pool]
        by_regions = pool[np.argsort(self.regions[pool], kind="stable")]
        if self.images is not None:
            return np.split(by_regions, cuts)
        tokens, most = self.tokens[by_regions], len(cuts) + 1
        if self.regions[by_regions[0]] == self.regions[by_regions[-1]]:
            most = 1
        found = []
        for number in (2**power for power in range(most.bit_length())):
            slab = np.arange(len(pool)) * number // len(pool)
            found.append(by_regions[np.lexsort((tokens, slab))])
        starts = np.concatenate([[0], cuts])
        return np.split(min(found, key=lambda order: sum(padded_size(self.regions, self.tokens, order, starts))), cuts)


class Padding(NamedTuple):
    """Which part of the regions, and of the tokens, that are computed is padding; in [0, 1]."""

    regions: float
    tokens: float


def padded_size(regions: np.ndarray, tokens: np.ndarray, order: np.ndarray, starts: np.ndarray) -> tuple[int, int]:
    """How many regions and tokens questions in this order have with their padding, in batches that start there."""
    lengths = np.diff(starts, append=len(order))
    whole = [int((lengths * np.maximum.reduceat(sizes[order], starts)).sum()) for sizes in (regions, tokens)]
    return whole[0], whole[1]


def padding_share(regions: np.ndarray, tokens: np.ndarray, batches: Sequence[np.ndarray]) -> Padding:
    """How much of these batches of questions is padding.

    Args:
        regions: (N,) number of regions of each question's image.
        tokens: (N,) number of tokens of each question.
        batches: the questions of each batch.
    """
    order, lengths = np.concatenate(batches), np.array([len(batch) for batch in batches])
    whole = padded_size(regions, tokens, order, np.cumsum(lengths) - lengths)
    real = (int(sizes[order].sum()) for sizes in (regions, tokens))
    return Padding(*(1 - part / max(padded, 1) for part, padded in zip(real, whole, strict=True)))


def evaluation_batches(regions: np.ndarray, tokens: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The questions of each batch of an evaluation, which needs no randomness: by size, largest first."""
    order = np.lexsort((tokens, regions))[::-1].copy()  # torch knows no negative strides
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def share(batch: np.ndarray, rank: int, num_ranks: int, *, together: bool = False) -> np.ndarray:
    """What one of several devices computes of a batch. As sizes rise along a batch, each gets some of every size.

    Args:
        batch: (B,) questions.
        rank: of the device.
        num_ranks: how many there are.
        together: give each device neighbours instead, for batches with the questions of an image together.

    Raises:
        ValueError: there are fewer questions than devices.
    """
    if len(batch) < num_ranks:
        raise ValueError(f"a batch of {len(batch)} questions cannot be shared by {num_ranks} devices; raise batch_size")
    return np.array_split(batch, num_ranks)[rank] if together else batch[rank::num_ranks]
