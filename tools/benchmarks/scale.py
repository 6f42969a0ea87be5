"""The sizes and repetitions of the measurements, on a CPU, on a GPU, and with `--quick`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.conventional import Sizes
from benchmarks.data import DataSet, Shape


class Scale(NamedTuple):
    """Sizes and repetitions.

    Attributes:
        sizes: the sizes of the model.
        batch_size: questions in a training batch; an evaluation batch has twice as many.
        num_images: images in a data set, which has five times as many questions (5.4 in VQA v2).
        rounds: repetitions of each measurement.
        reading_rounds: repetitions of reading and converting, which take less time.
        steps: training steps in a measurement of batches of equal size.
        warmup: training steps before such a measurement.
        epoch: batches of an epoch, all of which are measured where their sizes vary.
        epoch_warmup: training steps before such an epoch.
        their_steps: steps of the conventional training in a measurement.
        their_warmup: steps of the conventional training before it, which use up the batches read meanwhile.
        batches: batches of features in a measurement of our reading.
        their_batches: batches of features in a measurement of the conventional reading.
        num_workers: workers of the conventional loader in training.
        their_workers: numbers of workers in measurements of the conventional reading alone.
        asked: single questions.
        eval_batches: batches in a measurement of our evaluation.
        their_eval_batches: batches of the conventional evaluation, which are half as large.
        images: images to extract features from.
        workers: numbers of workers that our reading is measured with.
        growth: for each kind of size its values, and for each value the questions, regions and tokens of a batch.
        tsv_megabytes: size of the converted feature file.
        prepared: the share of VQA v2's questions that are prepared and scored.
        vqa_v2: the share of VQA v2 that is trained on for an epoch; 0 where that would take hours.
    """

    sizes: Sizes
    batch_size: int
    num_images: int
    rounds: int
    reading_rounds: int
    steps: int
    warmup: int
    epoch: int
    epoch_warmup: int
    their_steps: int
    their_warmup: int
    batches: int
    their_batches: int
    num_workers: int
    their_workers: tuple[int, ...]
    asked: int
    eval_batches: int
    their_eval_batches: int
    images: int
    workers: tuple[int, ...]
    growth: dict[str, dict[int, tuple[int, int, int]]]
    tsv_megabytes: float = 100
    prepared: float = 1.0
    vqa_v2: float = 0.0

    def data(self, folder: Path, shape: Shape, *, num_batches: int | None = None) -> DataSet:
        """A data set of this scale, or with `num_batches` batches of questions."""
        questions = 5 * self.num_images if num_batches is None else num_batches * self.batch_size
        return self.sized_data(folder, shape, num_images=self.num_images, num_questions=questions)

    def sized_data(self, folder: Path, shape: Shape, *, num_images: int, num_questions: int) -> DataSet:
        """A data set for the model of this scale."""
        return DataSet(
            folder,
            shape,
            num_images=num_images,
            num_questions=num_questions,
            region_dim=self.sizes.region_dim,
            num_words=self.sizes.num_words,
            num_answers=self.sizes.num_answers,
        )


def growing(
    *, batch: Sequence[int], regions: Sequence[int], tokens: Sequence[int], questions: int
) -> dict[str, dict[int, tuple[int, int, int]]]:
    """Batch shapes that grow in one size; `questions` is the batch size where regions or tokens grow."""
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
    reading_rounds=9,
    steps=2,
    epoch=8,
    their_steps=2,
    their_warmup=0,
    warmup=1,
    epoch_warmup=0,
    batches=200,
    their_batches=8,
    num_workers=2,
    their_workers=(0, 2),
    asked=150,
    eval_batches=6,
    their_eval_batches=2,
    images=64,
    workers=(0, 1, 2, 4),
    growth=growing(batch=(1, 4, 16, 64), regions=(10, 25, 50, 100, 200, 400), tokens=(4, 8, 15, 30, 60), questions=8),
)
CUDA = Scale(
    Sizes(),
    batch_size=256,
    num_images=3000,
    rounds=3,
    reading_rounds=5,
    steps=60,
    epoch=60,
    their_steps=30,
    their_warmup=30,
    warmup=20,
    epoch_warmup=60,
    batches=100,
    their_batches=10,
    num_workers=12,
    their_workers=(12,),
    asked=300,
    eval_batches=60,
    their_eval_batches=30,
    images=500,
    workers=(0, 2, 4, 8, 16),
    vqa_v2=1.0,
    growth=growing(
        batch=(1, 8, 64, 512), regions=(10, 25, 50, 100, 200, 400), tokens=(4, 8, 15, 30, 60), questions=128
    ),
)
QUICK = Scale(
    Sizes(200, 50, 64, 16, 32, 2, 4, 64, 32, 64),
    batch_size=8,
    num_images=24,
    rounds=1,
    reading_rounds=1,
    steps=1,
    epoch=2,
    their_steps=1,
    their_warmup=0,
    warmup=1,
    epoch_warmup=0,
    batches=3,
    their_batches=3,
    num_workers=1,
    their_workers=(0, 1),
    asked=2,
    eval_batches=1,
    their_eval_batches=1,
    images=4,
    workers=(0, 1),
    tsv_megabytes=1,
    prepared=1e-3,
    vqa_v2=1e-4,
    growth=growing(batch=(1, 2), regions=(10, 20), tokens=(4, 8), questions=2),
)
