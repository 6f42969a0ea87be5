"""Which training questions come when, with which images: a pure function of the split, the settings, and the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coattn.features.store.joined import JoinedStore
from coattn.features.store.manifest import FLIP
from coattn.features.store.reader import FeatureStore
from coattn.training.batches import BatchPlan, Padding, draw_flips, evaluation_batches, padding_share, share
from coattn.training.curriculum import EasyFirst
from coattn.training.dataset import Draw
from coattn.training.splits import Split, image_positions

_DECIDING = ("batch_size", "pool", "group_by_image", "flips", "curriculum", "targets")


class TrainingOrder:
    """The order of a training run, the same for any number of workers and devices.

    Args:
        split: the training questions.
        features: where their images are.
        options: the settings of a `VQADataModule`.
        accumulate: batches per optimiser step.

    Raises:
        ValueError: settings that do not fit the questions.
    """

    def __init__(
        self, split: Split, features: FeatureStore | JoinedStore, options: Mapping[str, Any], *, accumulate: int
    ) -> None:
        self.split, self.features, self.options, self.accumulate = split, features, options, accumulate
        self.seed: int = options["seed"] or 0
        self.plan = BatchPlan(
            split.num_regions,
            split.num_tokens,
            options["batch_size"],
            seed=self.seed,
            accumulate=accumulate,
            pool=options["pool"],
            images=split.images if options["group_by_image"] else None,
        )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.plan)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What decides the order; plain values."""
        chosen = {name: self.options[name] for name in _DECIDING}
        return {**chosen, "seed": self.seed, "accumulate": self.accumulate, "questions": self._digest()}

    @cached_property
    def easy_first(self) -> BatchPlan | EasyFirst:
        """The plan, with the easy questions first where there is a curriculum.

        Raises:
            ValueError: the curriculum names a question type that there is not.
        """
        curriculum = self.options["curriculum"]
        if curriculum is None:
            return self.plan
        types = [record.question_type for record in self.split.records]
        if unknown := [name for name in curriculum["question_types"] if name not in types]:
            raise ValueError(
                f"data.curriculum: no training question has the question type {unknown[0]!r}; "
                f"there are {', '.join(map(repr, sorted(set(types))))}"
            )
        return EasyFirst(self.plan, np.isin(types, curriculum["question_types"]), curriculum["epochs"])

    def check(self, saved: Mapping[str, Any], *, word_vectors: Mapping[str, Any] | None) -> None:
        """Refuse to go on from a checkpoint of another order, or that began with other word vectors.

        Raises:
            ValueError: the message names each setting that differs.
        """
        ours, theirs = dict(self.record), dict(saved)
        ours["word_vectors"] = self.options["word_vectors"] and Path(self.options["word_vectors"]).name
        theirs["word_vectors"] = (word_vectors or {}).get("file")
        changed = [f"{name} was {theirs.get(name)}, is {ours[name]}" for name in ours if ours[name] != theirs.get(name)]
        if changed:
            raise ValueError(
                f"cannot go on from this checkpoint with other training data or batches: {'; '.join(changed)}. "
                "Use the same settings, or start a new run"
            )

    def draws(self, epoch: int, rank: int = 0, num_ranks: int = 1, *, done: int = 0) -> list[Draw]:
        """What one of several devices reads in an epoch, but for the first `done` batches."""
        images = self.images(epoch)
        together = self.options["group_by_image"]
        shares = (
            (share(batch, rank, num_ranks, together=together), divisor)
            for batch, divisor in self.easy_first.epoch(epoch)[done:]
        )
        return [Draw(positions, images[positions], divisor) for positions, divisor in shares]

    @cached_property
    def padding(self) -> Padding:
        """The part of an epoch that is padding."""
        return padding_share(self.plan.regions, self.plan.tokens, [batch for batch, _ in self.plan.epoch(0)])

    def images(self, epoch: int) -> np.ndarray:
        """The image (N,) of each question in an epoch, by its place in the store: as it is, or mirrored."""
        if not self.options["flips"]:
            return self.split.images
        flipped = draw_flips(len(self.split.images), seed=self.seed, epoch=epoch)
        return np.where(flipped, self._flipped_images, self.split.images)

    @property
    def all_images(self) -> np.ndarray:
        """The images of all questions, and their mirror images where these are shown too."""
        images = self.split.images
        return np.concatenate([images, self._flipped_images]) if self.options["flips"] else images

    @cached_property
    def _flipped_images(self) -> np.ndarray:
        return image_positions(
            self.features,
            [f"{record.image_id}{FLIP}" for record in self.split.records],
            what="data.train_questions, mirrored",
            fix="extract with --flips, or set data.flips to false",
        )

    def _digest(self) -> str:
        """Short name of the training questions, their answers, and the sizes of their images, in order."""
        digest = hashlib.sha256(self.split.num_regions.tobytes())
        for record in self.split.records:
            digest.update(f"{record.question_id}\0{record.image_id}\0{record.question}\0{record.answers}\n".encode())
        return digest.hexdigest()[:16]


def evaluation_draws(split: Split, batch_size: int, rank: int, num_ranks: int) -> list[Draw]:
    """What one of several devices reads of a whole split, by size."""
    batches = evaluation_batches(split.num_regions, split.num_tokens, batch_size)
    shares = (share(batch, rank, num_ranks) for batch in batches)
    return [Draw(positions, split.images[positions], float(len(positions))) for positions in shares]
