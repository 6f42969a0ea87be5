"""The order of training questions, the same for any number of workers and devices."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coattn.features.store.joined import JoinedStore
from coattn.features.store.manifest import FLIP
from coattn.features.store.reader import FeatureStore
from coattn.training.data.batches import Draw
from coattn.training.data.plan import (
    FLIPS,
    ORDER,
    BatchPlan,
    EasyFirst,
    Padding,
    evaluation_batches,
    padding_share,
    random_integers,
    share,
)
from coattn.training.data.settings import DataSettings
from coattn.training.data.split import Split, image_positions
from coattn.training.settings import MOVED


def draw_flips(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """(count,) bool, the questions whose image is mirrored in this epoch."""
    return random_integers(count, seed, epoch, FLIPS) >> np.uint64(63) == 1


# Left and right in English, German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese and Japanese.
_SIDES = re.compile(
    r"\b(left|right|link[es]?|linke[rnsm]|rechts?|rechte[rnsm]?|gauche|droite?|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]"
    r"|esquerd[ao]|direit[ao])(most|hand|wards?)?\b|\b(лев|прав|слева|справа)|[左右]",
    re.IGNORECASE,
)


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
                f"cannot resume from this checkpoint with other training data or batches: {'; '.join(changed)}. "
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
    batches = evaluation_batches(split.num_regions, split.num_tokens, split.images, batch_size)
    if mixed:
        order = np.argsort(random_integers(len(split.images), 0, 0, ORDER), kind="stable")
        batches = np.array_split(order, len(batches))
    shares = (share(batch, rank, num_ranks, together=not mixed) for batch in batches)
    return [Draw(positions, split.images[positions], float(len(positions))) for positions in shares]


def _setting(name: str) -> str:
    """The name of a setting in messages, from its name in the record of an order."""
    return MOVED.get(
        f"data.{name}", {"seed": "data.seed", "accumulate": "trainer.accumulate_grad_batches"}.get(name, name)
    )
