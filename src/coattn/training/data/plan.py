"""Which questions are computed together: a pure function of their sizes, the seed and the epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ORDER, FLIPS = 0, 1  # purposes of streams of random numbers


def random_integers(count: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """`count` random uint64 that depend only on the arguments, on every machine and with every release of numpy.

    Numpy guarantees stable streams only for bit generators and seed sequences, not for `permutation` or `random`.
    """
    return np.random.PCG64(np.random.SeedSequence([seed, epoch, purpose])).random_raw(count)


@dataclass(frozen=True)
class BatchPlan:
    """The assignment of questions to batches, a pure function of the sizes, the arguments and the epoch.

    A *batch* is computed in one training step by all devices together, and `accumulate` batches make one optimizer
    step. Optimizer steps are as equal in size as possible. The number of devices and of accumulated batches changes
    which questions are computed together, but not which step they belong to. Losses are summed and divided by the
    `divisor`, so that the gradient of a step is the mean over its questions in any case (Lightning divides by
    `accumulate` and averages over devices).

    Args:
        regions: (N,) number of regions of each question's image.
        tokens: (N,) number of tokens of each question.
        batch_size: maximum number of questions in a batch.
        seed: of the order.
        accumulate: batches per optimizer step.
        pool: number of optimizer steps that are filled together with questions of similar size, which saves padding; 1
            mixes all sizes.
        images: (N,) the image of each question, to group questions by image, or None. The questions of an image may be
            split between two batches. Grouped questions are not sorted by tokens.

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
                f"an optimizer step of {smallest} questions cannot be cut into {self.accumulate} accumulated batches; "
                f"raise batch_size (now {self.batch_size}), or lower accumulate_grad_batches"
            )

    @property
    def num_steps(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(len(self.regions) / (self.batch_size * self.accumulate))

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.num_steps * self.accumulate

    def epoch(self, epoch: int) -> list[tuple[np.ndarray, float]]:
        """The batches of an epoch in order: the questions of each, and its divisor. Every question occurs once."""
        random = random_integers(len(self.regions) + self.num_steps, self.seed, epoch, ORDER)
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
        """Cut an order of all questions into optimizer steps of similar size."""
        bounds = np.arange(self.num_steps + 1) * len(order) // self.num_steps
        for first in range(0, self.num_steps, self.pool):
            inside = bounds[first : first + self.pool + 1]
            yield from self._sorted(order[inside[0] : inside[-1]], inside[1:-1] - inside[0])

    def _sorted(self, pool: np.ndarray, cuts: np.ndarray) -> list[np.ndarray]:
        """Sort questions by regions into slabs, sort each slab by tokens, and cut.

        Few slabs save padding of tokens, many slabs padding of regions; the number with the least padding is used.
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
    """Shares of padding among the regions and among the tokens that are computed, in [0, 1]."""

    regions: float
    tokens: float


def padded_size(regions: np.ndarray, tokens: np.ndarray, order: np.ndarray, starts: np.ndarray) -> tuple[int, int]:
    """Numbers of regions and tokens, with padding, of questions in this order, in batches that begin at `starts`."""
    lengths = np.diff(starts, append=len(order))
    whole = [int((lengths * np.maximum.reduceat(sizes[order], starts)).sum()) for sizes in (regions, tokens)]
    return whole[0], whole[1]


def padding_share(regions: np.ndarray, tokens: np.ndarray, batches: Sequence[np.ndarray]) -> Padding:
    """The shares of padding in batches of questions.

    Args:
        regions: (N,) number of regions of each question's image.
        tokens: (N,) number of tokens of each question.
        batches: the questions of each batch.
    """
    order, lengths = np.concatenate(batches), np.array([len(batch) for batch in batches])
    whole = padded_size(regions, tokens, order, np.cumsum(lengths) - lengths)
    real = (int(sizes[order].sum()) for sizes in (regions, tokens))
    return Padding(*(1 - part / max(padded, 1) for part, padded in zip(real, whole, strict=True)))


def evaluation_batches(
    regions: np.ndarray, tokens: np.ndarray, images: np.ndarray, batch_size: int
) -> list[np.ndarray]:
    """The questions of each batch of an evaluation, sorted by size, largest first, those of an image together.

    Images with equally many regions are sorted by their longest question, which saves padding of tokens.
    """
    _, image = np.unique(images, return_inverse=True)
    longest = np.zeros(len(images), tokens.dtype)
    np.maximum.at(longest, image, tokens)
    order = np.lexsort((image, longest[image], regions))[::-1].copy()  # torch does not support negative strides
    return np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else []


def share(batch: np.ndarray, rank: int, num_ranks: int, *, together: bool = False) -> np.ndarray:
    """The questions of a batch that one of several devices computes. Each device receives questions of every size.

    Args:
        batch: (B,) questions.
        rank: of the device.
        num_ranks: number of devices.
        together: assign neighboring questions to each device instead, for batches that keep the questions of an image
            together.

    Raises:
        ValueError: there are fewer questions than devices.
    """
    if len(batch) < num_ranks:
        raise ValueError(f"a batch of {len(batch)} questions cannot be shared by {num_ranks} devices; raise batch_size")
    return np.array_split(batch, num_ranks)[rank] if together else batch[rank::num_ranks]


class EasyFirst:
    """A plan whose first batches contain easy questions only; a pure function of the epoch.

    Epochs keep their length, so schedules do not change. After the easy part, the epoch continues with the batches that
    the plan has at that place; the questions of the batches before are seen in later epochs.

    Args:
        plan: of all questions.
        easy: (N,) bool, the easy ones.
        epochs: length of the easy part, in epochs of the plan; rounded to whole optimizer steps.

    Raises:
        ValueError: there are no easy questions, or too few for the accumulated batches.
    """

    def __init__(self, plan: BatchPlan, easy: np.ndarray, epochs: float) -> None:
        self.plan = plan
        self.positions = np.flatnonzero(easy)
        images = None if plan.images is None else plan.images[easy]
        self.easy_plan = dataclasses.replace(plan, regions=plan.regions[easy], tokens=plan.tokens[easy], images=images)
        self.num_batches = round(epochs * plan.num_steps) * plan.accumulate

    def epoch(self, epoch: int) -> list[tuple[np.ndarray, float]]:
        """The batches of an epoch in order, as `BatchPlan.epoch`."""
        batches = self.plan.epoch(epoch)
        first = epoch * len(batches)
        places = np.arange(first, max(first, min(first + len(batches), self.num_batches)))
        easy = []
        for number in np.unique(places // len(self.easy_plan)):  # passes through the easy questions, from 0
            inside = places[places // len(self.easy_plan) == number] % len(self.easy_plan)
            easy += self.easy_plan.epoch(int(number))[inside[0] : inside[-1] + 1]
        return [(self.positions[batch], divisor) for batch, divisor in easy] + batches[len(easy) :]
