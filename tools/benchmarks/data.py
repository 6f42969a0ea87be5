"""Synthetic data with real shapes: stores of region features, the same as files per image, and questions.

Nothing about speed depends on the values, so rows are cut from one block of random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.conventional import NUM_TOKENS, Samples
from coattn.datasets.records import Record
from coattn.features.store.part_writer import write_part
from coattn.features.store.reader import FeatureStore
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary
from coattn.training.data.batches import Ragged
from coattn.training.data.module import VQADataModule
from coattn.training.data.split import Questions
from coattn.training.data.text_inputs import Vocabularies

_RECORD: dict[str, object] = {"name": "synthetic", "settings": {}, "weights": None}
_BLOCK_ROWS = 8192


class Shape(NamedTuple):
    """The sizes of the images and questions of a data set.

    Attributes:
        name: its name in tables.
        regions: of each image; None draws 10 to 100, 40 on average, as detectors give with a threshold.
        tokens: of each question; None draws 2 to 14, 6.5 on average, as in VQA v2.
    """

    name: str
    regions: int | None
    tokens: int | None

    def draw_regions(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) int64, regions of each image."""
        if self.regions is not None:
            return np.full(count, self.regions)
        return np.clip(np.rint(10 + rng.gamma(2, 15.5, count)), 10, 100).astype(np.int64)

    def draw_tokens(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) int64, tokens of each question."""
        if self.tokens is not None:
            return np.full(count, self.tokens)
        return np.clip(2 + rng.poisson(rng.gamma(4, 4.6 / 4, count)), 2, NUM_TOKENS)


ADAPTIVE, FIXED_36, FIXED_100 = (
    Shape("10 to 100 regions", None, None),
    Shape("36 regions", 36, None),
    Shape("100 regions, 14 tokens", 100, NUM_TOKENS),
)


class DataSet:
    """A synthetic data set in a folder: its store is written when first asked for, and found there the next time.

    Args:
        folder: where its files are.
        shape: of images and questions.
        num_images: images.
        num_questions: questions, spread evenly over the images.
        region_dim: width of the features.
        num_words: ids of the question vocabulary.
        num_answers: size of the answer vocabulary.
    """

    def __init__(
        self,
        folder: Path,
        shape: Shape,
        *,
        num_images: int,
        num_questions: int,
        region_dim: int,
        num_words: int,
        num_answers: int,
    ) -> None:
        self.folder, self.shape, self.num_images, self.num_questions = folder, shape, num_images, num_questions
        self.region_dim, self.num_words, self.num_answers = region_dim, num_words, num_answers

    @cached_property
    def store(self) -> Path:
        """The feature store, float16."""
        path = self.folder / f"{self.shape.name.replace(' ', '_').replace(',', '')}_{self.num_images}.h5"
        if not path.exists():
            lengths = self.shape.draw_regions(self.num_images, np.random.default_rng(0))
            boxes = np.tile(np.array([0.1, 0.2, 0.6, 0.8], np.float32), (lengths.sum(), 1))
            write_part(
                path,
                record=_RECORD,
                image_ids=[str(number) for number in range(self.num_images)],
                lengths=lengths,
                sizes=np.full((self.num_images, 2), (640, 480), np.int32),
                columns={
                    "features": (np.dtype("<f2"), (self.region_dim,), self._rows(int(lengths.sum()))),
                    "boxes": (np.dtype("<f4"), (4,), [boxes]),
                },
            )
        return path

    def _rows(self, count: int) -> Iterator[np.ndarray]:
        """`count` rows, block by block."""
        rng = np.random.default_rng(0)
        block = rng.standard_normal((min(_BLOCK_ROWS, count), self.region_dim), np.float32).astype(np.float16)
        for start in range(0, count, len(block)):
            yield np.roll(block, start)[: count - start]

    @cached_property
    def files(self) -> list[Path]:
        """An .npz per image, the features in float32 under "x": what conventional code reads."""
        folder = self.store.with_suffix(".files")
        paths = [folder / f"{number}.npz" for number in range(self.num_images)]
        if not paths[-1].exists():
            folder.mkdir(exist_ok=True)
            features = FeatureStore(self.store)
            for number, path in enumerate(paths):
                np.savez(path, x=features.read(number).features)
        return paths

    @cached_property
    def records(self) -> list[Record]:
        """The questions, with ten answers each."""
        rng = np.random.default_rng(1)
        lengths = self.shape.draw_tokens(self.num_questions, rng)
        words = rng.integers(0, self.num_words - 2, lengths.sum())
        texts = np.split(words, np.cumsum(lengths)[:-1])
        answers = rng.integers(0, self.num_answers, (self.num_questions, 3))
        agreeing = rng.integers(4, 9, self.num_questions)
        return [
            Record(
                question_id=number,
                image_id=number % self.num_images,
                question=" ".join(f"w{word}" for word in text),
                answers=tuple(f"a{a}" for a in [first] * agree + [second] * (9 - agree) + [third]),
            )
            for number, (text, (first, second, third), agree) in enumerate(zip(texts, answers, agreeing, strict=True))
        ]

    def module(self, **options: object) -> VQADataModule:
        """The data as training reads it; `options` as `VQADataModule` has them."""
        module = VQADataModule(features=str(self.store), **options)  # type: ignore[arg-type]
        module.text.vocabularies = make_vocabularies(self.num_words, self.num_answers)
        # What reading their files would give.
        module._read |= dict.fromkeys(("train", "predict"), Questions(self.records, "vqa_accuracy"))
        return module

    def samples(self) -> Samples:
        """The same questions as conventional code reads them."""
        dataset = self.module().split("train").dataset
        questions, targets = dataset.questions, dataset.targets
        assert isinstance(questions, Ragged), "there is a vocabulary"
        answers = [
            list(zip(targets.values[start:end].tolist(), dataset.scores[start:end].tolist(), strict=True))
            for start, end in zip(targets.offsets, targets.offsets[1:], strict=False)
        ]
        rows = np.split(questions.values.astype(np.int64), questions.offsets[1:-1])
        return Samples([self.files[int(record.image_id)] for record in self.records], rows, answers, self.num_answers)


def make_vocabularies(num_words: int, num_answers: int) -> Vocabularies:
    """Words w0, w1, ... for ids from 2, and answers a0, a1, ..."""
    words = Vocabulary([f"w{number}" for number in range(num_words - 2)])
    return Vocabularies(words, AnswerVocabulary([f"a{number}" for number in range(num_answers)]))
