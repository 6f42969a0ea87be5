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

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of some rows behind one another, and the lengths of those rows."""
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        before = np.cumsum(lengths) - lengths
        return self.values[np.repeat(starts - before, lengths) + np.arange(lengths.sum())], lengths


def pad_rows(rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Ragged rows to a padded tensor and its mask.

    Args:
        rows: (sum of lengths, ...), those of the first element first.
        lengths: (B,) int64.

    Returns:
        (B, L, ...) with L the longest length and at least 1, zeros at padding; and the mask (B, L), True = real.
    """
    longest = max(int(lengths.max()), 1)
    mask = torch.arange(longest) < lengths[:, None]
    if len(rows) == mask.numel():  # all equally long: nothing to pad, nothing to copy
        return rows.view(*mask.shape, *rows.shape[1:]), mask
    padded = rows.new_zeros(*mask.shape, *rows.shape[1:])
    padded[mask] = rows
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

    Raises:
        ValueError: there are no questions, or a number is not positive.
    """

    regions: np.ndarray
    tokens: np.ndarray
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    pool: int = 16

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
        shuffled = np.argsort(random[self.num_steps :], kind="stable")
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
            pool = order[inside[0] : inside[-1]]
            yield from np.split(self._sorted(pool, len(inside) - 1), inside[1:-1] - inside[0])

    def _sorted(self, pool: np.ndarray, num_steps: int) -> np.ndarray:
        """Sort questions by regions, and by tokens among those with about as many regions."""
        if num_steps == 1:
            return pool
        by_regions = pool[np.argsort(self.regions[pool], kind="stable")]
        varied = self.regions[by_regions[0]] != self.regions[by_regions[-1]]
        slabs = np.array_split(by_regions, round(math.sqrt(num_steps)) if varied else 1)
        return np.concatenate([slab[np.argsort(self.tokens[slab], kind="stable")] for slab in slabs])


def evaluation_batches(regions: np.ndarray, tokens: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The questions of each batch of an evaluation, which needs no randomness: by size, largest first."""
    order = np.lexsort((tokens, regions))[::-1].copy()  # torch knows no negative strides
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def share(batch: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """What one of several devices computes of a batch. As sizes rise along a batch, each gets some of every size.

    Raises:
        ValueError: there are fewer questions than devices.
    """
    if len(batch) < num_ranks:
        raise ValueError(f"a batch of {len(batch)} questions cannot be shared by {num_ranks} devices; raise batch_size")
    return batch[rank::num_ranks]
