"""From questions to the texts of batches: a data set that reads those of a whole batch at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coattn.features.store.reader import FeatureStore
from coattn.training.batches import Ragged


class Draw(NamedTuple):
    """What to read: positions (B,) of questions in their split, images (B,) of the store, and the batch's divisor.

    Everything random is in here already, so it does not matter who reads.
    """

    positions: np.ndarray
    images: np.ndarray
    divisor: float


class Texts(NamedTuple):
    """What a `Batch` holds but for its images: the fields of the same names."""

    question: Tensor
    question_mask: Tensor
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor


class QuestionEmbeddings(NamedTuple):
    """Given token embeddings: a store, and which of its entries belongs to each question."""

    store: FeatureStore
    entries: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) number of tokens of each question."""
        return self.store.lengths[self.entries]

    def padded(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings (B, T, E) of some questions, zeros at padding, and the mask (B, T)."""
        rows = self.store.read_padded(self.entries[positions])
        return rows.features, np.arange(rows.features.shape[1]) < rows.lengths[:, None]


class QuestionDataset(Dataset[Texts]):
    """The questions of a split. Its items are those of whole batches, read in one call; it may be pickled and forked.

    Args:
        questions: token ids, or given token embeddings.
        targets: the answers that are right, per question, by number or in words (`Batch.target_answers`), ...
        scores: ... and what each is worth (same offsets).
    """

    def __init__(self, questions: Ragged | QuestionEmbeddings, targets: Ragged, scores: np.ndarray) -> None:
        self.questions, self.targets, self.scores = questions, targets, scores

    def __len__(self) -> int:
        return len(self.targets.offsets) - 1

    def __getitem__(self, draw: Draw) -> Texts:
        question, question_mask = self.questions.padded(draw.positions)
        places, num_targets = self.targets.places(draw.positions)
        return Texts(
            question=torch.from_numpy(question.astype(np.int64) if question.dtype == np.int32 else question),
            question_mask=torch.from_numpy(question_mask),
            target_rows=torch.from_numpy(np.repeat(np.arange(len(draw.positions)), num_targets)),
            target_answers=torch.from_numpy(_trimmed(self.targets.values[places]).astype(np.int64)),
            target_scores=torch.from_numpy(self.scores[places]),
            positions=torch.from_numpy(draw.positions),
        )


def _trimmed(answers: np.ndarray) -> np.ndarray:
    """Answers by number (S,) as they are; answers in words (S, L) without the places that are padding in all."""
    if answers.ndim == 1:
        return answers
    return answers[:, : max(int((answers != 0).sum(axis=1).max(initial=1)), 1)]
