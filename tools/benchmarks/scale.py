"""How much is measured: for numbers that mean something, or with `--quick` only whether everything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.conventional import Sizes
from benchmarks.data import DataSet, Shape


class Scale(NamedTuple):
    """Sizes and repetitions.

    Attributes:
        sizes: of the model.
        batch_size: of training.
        num_images: in a data set; there are `questions_per_image` times as many questions.
        questions_per_image: as in VQA v2, 5.4, rounded.
        rounds: how often each measurement is repeated.
        steps: training steps in a measurement of batches that are all alike ...
        epoch: ... and where sizes vary, all batches of an epoch of this length.
        warmup: training steps before a measurement begins ...
        epoch_warmup: ... and before one of an epoch.
        batches: of features, in a measurement of our reading ...
        their_batches: ... and of the conventional.
        num_workers: of the conventional loader.
    """

    sizes: Sizes
    batch_size: int
    num_images: int
    rounds: int
    steps: int
    epoch: int
    warmup: int
    epoch_warmup: int
    batches: int
    their_batches: int
    num_workers: int
    questions_per_image: int = 5

    def data(self, folder: Path, shape: Shape, *, num_batches: int | None = None) -> DataSet:
        """A data set of this scale, or with so many batches of questions."""
        questions = self.num_images * self.questions_per_image
        return DataSet(
            folder,
            shape,
            num_images=self.num_images,
            num_questions=questions if num_batches is None else num_batches * self.batch_size,
            region_dim=self.sizes.region_dim,
            num_words=self.sizes.num_words,
            num_answers=self.sizes.num_answers,
        )

    @property
    def preset(self) -> dict[str, Any]:
        """The model's sizes as `coattn.presets.mcan_small` calls them, without those that follow from the data."""
        given = ("num_words", "num_answers", "region_dim")
        return {name: value for name, value in self.sizes._asdict().items() if name not in given}


CPU = Scale(
    Sizes(),
    batch_size=64,
    num_images=1000,
    rounds=3,
    steps=1,
    epoch=8,
    warmup=1,
    epoch_warmup=0,
    batches=50,
    their_batches=5,
    num_workers=2,
)
CUDA = Scale(
    Sizes(),
    batch_size=256,
    num_images=8000,
    rounds=5,
    steps=100,
    epoch=100,
    warmup=20,
    epoch_warmup=100,
    batches=200,
    their_batches=30,
    num_workers=12,
)
QUICK = Scale(
    Sizes(200, 50, 64, 16, 32, 2, 4, 64, 32, 64),
    batch_size=8,
    num_images=24,
    rounds=1,
    steps=1,
    epoch=2,
    warmup=1,
    epoch_warmup=0,
    batches=3,
    their_batches=3,
    num_workers=1,
)
