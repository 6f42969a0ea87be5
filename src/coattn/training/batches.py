"""Batches of ragged questions and images, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coattn.features.residency.features import Features
from coattn.features.residency.held import moved


class Batch(NamedTuple):
    """A batch of B questions, padded to its own longest question (T tokens) and image (R regions).

    Attributes:
        question: (B, T) int64 token ids, or (B, T, E) token embeddings as stored.
        question_mask: (B, T) bool, True = real.
        regions: (B, R, D) features as stored (float16 or float32), zeros at padding.
        region_mask: (B, R) bool, True = real.
        boxes: (B, R, 4) float32, x1 y1 x2 y2 in [0, 1]; None if the feature store does not know them.
        image_sizes: (B, 2) float32, width and height in pixels; None if one of them is unknown.
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
    boxes: Tensor | None
    image_sizes: Tensor | None
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor
    divisor: float

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, which on CUDA nothing waits for; what is there already is not copied."""
        # Other devices could still be reading when the memory of this batch is lent to the next one.
        non_blocking = device.type == "cuda"
        return Batch._make(
            part.to(device, non_blocking=non_blocking) if isinstance(part, Tensor) and part.device != device else part
            for part in self
        )

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

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of some rows are, one row after another, and the lengths of those rows."""
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum()), lengths

    def padded(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows (B, L, ...), L the longest length and at least 1, zeros at padding; and the mask (B, L)."""
        places, lengths = self.places(indices)
        mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
        padded = np.zeros((*mask.shape, *self.values.shape[1:]), self.values.dtype)
        padded[mask] = self.values[places]
        return padded, mask


class Draw(NamedTuple):
    """The rows of a batch: positions (B,) of questions in their split, images (B,) of the store, and its divisor.

    Everything random is in here already, so it does not matter who reads.
    """

    positions: np.ndarray
    images: np.ndarray
    divisor: float


class Texts(NamedTuple):
    """The fields of a `Batch` other than its images, under the same names."""

    question: Tensor
    question_mask: Tensor
    target_rows: Tensor
    target_answers: Tensor
    target_scores: Tensor
    positions: Tensor


def make_batch(draw: Draw, texts: Texts, features: Features) -> Batch:
    """A batch of texts and of the images they are about; what is of images lies where `features` gathers."""
    store = features.store
    lengths, rows = store.padded_rows(draw.images)
    mask = np.arange(rows.shape[1]) < lengths[:, None]
    sizes = store.sizes[draw.images].astype(np.float32)
    parts = (
        mask,
        store.column("boxes").take(rows, axis=0) if store.has_boxes else None,
        sizes if sizes.all() else None,
    )
    region_mask, boxes, image_sizes = (
        None if part is None else moved(torch.from_numpy(part), features.device) for part in parts
    )
    assert region_mask is not None
    return Batch(
        **texts._asdict(),
        regions=features.batch(draw.images),
        region_mask=region_mask,
        boxes=boxes,
        image_sizes=image_sizes,
        divisor=draw.divisor,
    )
