"""The order of training questions: a pure function of their sizes, the settings and the epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn.features.store.joined import JoinedStore
from coattn.features.store.manifest import FLIP
from coattn.features.store.reader import FeatureStore
from coattn.training.batches import Draw
from coattn.training.dataset import Split, image_positions
from coattn.training.settings import MOVED, DataSettings

_ORDER, _FLIPS = 0, 1  # purposes of streams of random numbers


def random_integers(count: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """`count` random uint64 that depend only on the arguments, on every machine and with every release of numpy.

    Numpy guarantees stable streams only for bit generators and seed sequences, not for `permutation` or `random`.
    """
    return np.random.PCG64(np.random.SeedSequence([seed, epoch, purpose])).random_raw(count)


def draw_flips(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """(count,) bool, the questions whose image is mirrored in this epoch."""
    return random_integers(count, seed, epoch, _FLIPS) >> np.uint64(63) == 1


# Left and right in English, German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese and Japanese.
_SIDES = re.compile(
    r"\b(left|right|link[es]?|linke[rnsm]|rechts?|rechte[rnsm]?|gauche|droite?|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]"
    r"|esquerd[ao]|direit[ao])(most|hand|wards?)?\b|\b(лев|прав|слева|справа)|[左右]",
    re.IGNORECASE,
)


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


def evaluation_batches(regions: np.ndarray, tokens: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The questions of each batch of an evaluation, sorted by size, largest first."""
    order = np.lexsort((tokens, regions))[::-1].copy()  # torch does not support negative strides
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


class TrainingOrder:
    """The order of a training run, the same for any number of workers and devices.

    Args:
        split: the training questions.
        features: the store of their images.
        settings: those of the data module.
        accumulate: batches per optimizer step.

    Raises:
        ValueError: settings that do not fit the questions.
    """

    def __init__(
        self, split: Split, features: FeatureStore | JoinedStore, settings: DataSettings, *, accumulate: int
    ) -> None:
        self.split, self.features, self.settings, self.accumulate = split, features, settings, accumulate
        self.seed = settings.seed or 0
        batches = settings.batches
        self.plan = BatchPlan(
            split.num_regions,
            split.num_tokens,
            batches.size,
            seed=self.seed,
            accumulate=accumulate,
            pool=batches.pool,
            images=split.images if batches.group_by_image else None,
        )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.plan)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The settings that determine the order; plain values."""
        batches = self.settings.batches
        chosen = {
            "batch_size": batches.size,
            "pool": batches.pool,
            "group_by_image": batches.group_by_image,
            "flips": batches.flips,
            "curriculum": batches.curriculum,
            "targets": self.settings.answers.targets,
        }
        return {**chosen, "seed": self.seed, "accumulate": self.accumulate, "questions": self._digest()}

    @cached_property
    def easy_first(self) -> BatchPlan | EasyFirst:
        """The plan; with a curriculum, the easy questions come first.

        Raises:
            ValueError: the curriculum names an unknown question type.
        """
        curriculum = self.settings.batches.curriculum
        if curriculum is None:
            return self.plan
        types = [record.question_type for record in self.split.records]
        if unknown := [name for name in curriculum["question_types"] if name not in types]:
            raise ValueError(
                f"data.batches.curriculum: no training question has the question type {unknown[0]!r}; "
                f"there are {', '.join(map(repr, sorted(set(types))))}"
            )
        return EasyFirst(self.plan, np.isin(types, curriculum["question_types"]), curriculum["epochs"])

    def check(self, saved: Mapping[str, Any], *, word_vectors: Mapping[str, Any] | None) -> None:
        """Check that a checkpoint was trained in this order and began with these word vectors.

        Raises:
            ValueError: the message names each setting that differs.
        """
        ours, theirs = dict(self.record), dict(saved)
        ours["word_vectors"] = self.settings.text.word_vectors and Path(self.settings.text.word_vectors).name
        theirs["word_vectors"] = (word_vectors or {}).get("file")
        changed = [
            f"{_setting(name)} was {theirs.get(name)}, is {ours[name]}"
            for name in ours
            if ours[name] != theirs.get(name)
        ]
        if changed:
            raise ValueError(
                f"cannot go on from this checkpoint with other training data or batches: {'; '.join(changed)}. "
                "Use the same settings, or start a new run"
            )

    def draws(self, epoch: int, rank: int = 0, num_ranks: int = 1, *, done: int = 0) -> list[Draw]:
        """The draws of one of several devices in an epoch, without the first `done` batches."""
        images = self.images(epoch)
        together = self.settings.batches.group_by_image
        shares = (
            (share(batch, rank, num_ranks, together=together), divisor)
            for batch, divisor in self.easy_first.epoch(epoch)[done:]
        )
        return [Draw(positions, images[positions], divisor) for positions, divisor in shares]

    @cached_property
    def padding(self) -> Padding:
        """The shares of padding in an epoch."""
        return padding_share(self.plan.regions, self.plan.tokens, [batch for batch, _ in self.plan.epoch(0)])

    def images(self, epoch: int) -> np.ndarray:
        """(N,) positions in the store of the image of each question in an epoch, mirrored or not."""
        if not self.settings.batches.flips:
            return self.split.images
        flipped = draw_flips(len(self.split.images), seed=self.seed, epoch=epoch) & ~self.sided
        return np.where(flipped, self._flipped_images, self.split.images)

    @cached_property
    def sided(self) -> np.ndarray:
        """(N,) bool, whether a question or one of its answers names left or right; its image is never mirrored."""
        texts = (" ".join((record.question, *record.answers)) for record in self.split.records)
        return np.array([_SIDES.search(text) is not None for text in texts], bool)

    @property
    def all_images(self) -> np.ndarray:
        """The images of all questions, with their mirror images if these are used."""
        images = self.split.images
        return np.concatenate([images, self._flipped_images]) if self.settings.batches.flips else images

    @cached_property
    def _flipped_images(self) -> np.ndarray:
        return image_positions(
            self.features,
            [f"{record.image_id}{FLIP}" for record in self.split.records],
            what="data.files.train_questions, mirrored",
            fix="extract with --flips, or set data.batches.flips to false",
        )

    def _digest(self) -> str:
        """Hash of the training questions, their answers, and the sizes of their images, in order."""
        digest = hashlib.sha256(self.split.num_regions.tobytes())
        for record in self.split.records:
            digest.update(f"{record.question_id}\0{record.image_id}\0{record.question}\0{record.answers}\n".encode())
        return digest.hexdigest()[:16]


def evaluation_draws(split: Split, batch_size: int, rank: int, num_ranks: int, *, mixed: bool = False) -> list[Draw]:
    """The draws of one of several devices over a split: by size, or with `mixed` each batch a random sample."""
    batches = evaluation_batches(split.num_regions, split.num_tokens, batch_size)
    if mixed:
        order = np.argsort(random_integers(len(split.images), 0, 0, _ORDER), kind="stable")
        batches = np.array_split(order, len(batches))
    shares = (share(batch, rank, num_ranks) for batch in batches)
    return [Draw(positions, split.images[positions], float(len(positions))) for positions in shares]


def _setting(name: str) -> str:
    """The name of a setting in messages, from its name in the record of an order."""
    return MOVED.get(
        f"data.{name}", {"seed": "data.seed", "accumulate": "trainer.accumulate_grad_batches"}.get(name, name)
    )
