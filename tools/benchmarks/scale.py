"""How much is measured: for numbers that mean something, or with `--quick` only whether everything runs."""

from __future__ import annotations

from collections.abc import Sequence
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
        asked: single questions.
        eval_batches: in a measurement of evaluation.
        workers: counts of them that reading is measured with.
        growth: for each kind of size its values, and for each of them questions, regions and tokens of a batch.
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
    asked: int
    eval_batches: int
    workers: tuple[int, ...]
    growth: dict[str, dict[int, tuple[int, int, int]]]
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


def growing(
    *, batch: Sequence[int], regions: Sequence[int], tokens: Sequence[int], questions: int
) -> dict[str, dict[int, tuple[int, int, int]]]:
    """Batches that grow in one size, the others as usual; `questions` in those that do not grow in that."""
    return {
        "batch size": {size: (size, 36, 7) for size in batch},
        "regions": {size: (questions, size, 14) for size in regions},
        "tokens": {size: (questions, 36, size) for size in tokens},
    }


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
    asked=40,
    eval_batches=2,
    workers=(0, 1, 2, 4),
    growth=growing(batch=(1, 4, 16, 64), regions=(10, 25, 50, 100, 200, 400), tokens=(4, 8, 15, 30, 60), questions=8),
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
    asked=200,
    eval_batches=60,
    workers=(0, 2, 4, 8, 16),
    growth=growing(
        batch=(1, 8, 64, 512), regions=(10, 25, 50, 100, 200, 400), tokens=(4, 8, 15, 30, 60), questions=128
    ),
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
    asked=2,
    eval_batches=1,
    workers=(0, 1),
    growth=growing(batch=(1, 2), regions=(10, 20), tokens=(4, 8), questions=2),
)
