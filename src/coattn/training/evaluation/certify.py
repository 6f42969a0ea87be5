"""The safeguards of a model directory: risk certificates from validation questions, and an index of training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from coattn.datasets.results import Results
from coattn.explain.abstain import Safeguards
from coattn.explain.image_index import FEWEST_IMAGES, ImageIndex, mean_features
from coattn.metrics.calibration import confidences
from coattn.metrics.certificate import certify
from coattn.serialization.directory import ModelDirectory
from coattn.training.data.module import VQADataModule
from coattn.training.objectives import Loss, make_objective

MAX_IMAGES = 20_000  # training or validation images that are read for the index
_BLOCK = 4096  # images that are compared with the index at once, 67 MB of means where features are 2048 wide


def make_safeguards(
    directory: ModelDirectory, data: VQADataModule, *, device: torch.device | str = "cpu"
) -> Safeguards:
    """Certify a model's risk on the validation questions, and index its training images.

    Args:
        directory: the model, with its fitted temperature.
        data: its training and validation data. Without validation questions there are no certificates and no index.
        device: where to validate.
    """
    if not data.has_validation:
        return Safeguards(directory.folder, None, None)
    confidence, worth = answer_confidences(directory, data, "val", torch.device(device))
    images = [record.image_id for record in data.split("val").records]
    train = split_features(data, "train")
    index = ImageIndex.build(train, split_features(data, "val")) if len(train) >= FEWEST_IMAGES else None
    return Safeguards(directory.folder, tuple(certify(confidence, worth, images)), index)


@torch.inference_mode()
def answer_confidences(
    directory: ModelDirectory, data: VQADataModule, split: str, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """The calibrated confidence (N,) of the answer to each question of a split, and what it is worth, (N,)."""
    model = directory.model.eval().to(device)
    written = data.num_answers is None
    loss: Loss = "cross_entropy" if written or directory.activation == "softmax" else "bce"
    objective = make_objective(model, loss=loss, label_smoothing=0.0)
    found: list[tuple[torch.Tensor, ...]] = []
    for batch in data.evaluation_loader(split, whole=True):
        outcome = objective.outcome(model, batch.to(device))
        shares = confidences(outcome.logits, directory.temperature, directory.activation).amax(1)
        found.append((batch.positions.cpu(), shares.cpu(), outcome.accuracy.cpu()))
    positions, confidence, worth = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    order = np.argsort(positions)
    return confidence[order].astype(np.float64).clip(0, 1), worth[order].astype(np.float64).clip(0, 1)


def split_features(data: VQADataModule, split: str) -> np.ndarray:
    """The mean region features (N, D) of the images of a split; at most `MAX_IMAGES` of them, drawn at random."""
    places = np.unique(data.split(split).images)
    if len(places) > MAX_IMAGES:
        places = np.sort(np.random.default_rng(0).choice(places, MAX_IMAGES, replace=False))
    return _mean_features(data, places)


def _mean_features(data: VQADataModule, places: np.ndarray) -> np.ndarray:
    """The mean region features (N, D) of the images at these places of the store."""

    def images() -> Iterator[np.ndarray]:
        for start in range(0, len(places), 64):
            block = data.features.read_flat(places[start : start + 64])
            yield from np.split(block.features, block.lengths.cumsum()[:-1])

    return mean_features(images())


def with_doubts(
    results: Results,
    safeguards: Safeguards,
    data: VQADataModule,
    split: str,
    *,
    max_risk: float | None = None,
    answer_anyway: bool = False,
) -> Results:
    """The answers of a model to questions of a split, with its doubts about them.

    Args:
        results: the answers with their confidences.
        safeguards: those of the model.
        data: the questions.
        split: the name of their split.
        max_risk: see `Safeguards.judged`.
        answer_anyway: see `Safeguards.judged`.
    """
    chosen = data.split(split)
    places, of_question = np.unique(chosen.images, return_inverse=True)
    unlike = np.zeros(len(places), bool)
    if safeguards.index is not None:
        for start in range(0, len(places), _BLOCK):
            block = slice(start, start + _BLOCK)
            unlike[block] = safeguards.index.are_unlike(_mean_features(data, places[block]))
    words = data.text.vocabularies.words
    doubts = {
        record.question_id: safeguards.doubt(
            results.confidences[record.question_id],
            bool(unlike[place]),
            record.question,
            words,
            max_risk=max_risk,
            answer_anyway=answer_anyway,
        )
        for record, place in zip(chosen.records, of_question.tolist(), strict=True)
        if record.question_id in results.answers
    }
    return replace(results, doubts=doubts)
