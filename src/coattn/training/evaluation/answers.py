"""Evaluate a trained model: its answers to a split, their scores and their calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from coattn._internal.progress import Advance
from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.calibration import confidences, expected_calibration_error, fit_temperature
from coattn.metrics.score import score
from coattn.metrics.scores import Scores
from coattn.training.data.module import VQADataModule
from coattn.training.task import VQATask

_MAX_LOGITS = 50_000_000  # for the temperature, 200 MB; of more questions every k-th is used


class CollectAnswers(Callback):
    """Collects the answers of `validate`, `test` or `predict` from all devices.

    Args:
        total: the largest number of questions that this device may answer.
        advance: called after each batch with the number of questions that all devices have answered in it.

    Attributes:
        positions: (N,) the places in their split of the questions that were answered; set when the loop ends.
        numbers: (N,) the answer to each question of the split by its place in the vocabulary, or (N, L) by its words;
            set when the loop ends.
        confidences: (N,) how sure the model is of each; likewise.
    """

    def __init__(self, total: int, advance: Advance = lambda count: None) -> None:
        self._total, self._advance, self._count = total, advance, 0
        self.positions = np.empty(0, np.int64)
        self.numbers = np.empty(0, np.int64)
        self.confidences = np.empty(0)
        self._collected: list[np.ndarray] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Copy the answers: small tensors, kept between large ones that are freed, would leave gaps in memory."""
        parts = [tensor.cpu().numpy() for tensor in outputs]
        if not self._collected:
            self._collected = [np.empty((self._total, *part.shape[1:]), part.dtype) for part in parts]
        end = self._count + len(parts[0])
        for collected, part in zip(self._collected, parts, strict=True):
            collected[self._count : end] = part
        self._count = end
        self._advance(len(parts[0]) * trainer.world_size)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring them together, in the order of the questions."""
        part = tuple(collected[: self._count] for collected in self._collected)
        self._collected, self._count = [], 0
        parts = [part]
        if trainer.world_size > 1:
            parts = [part] * trainer.world_size
            torch.distributed.all_gather_object(parts, part)
        positions, numbers, confidences = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(positions)
        self.positions, self.numbers, self.confidences = positions[order], numbers[order], confidences[order]

    on_test_epoch_end = on_validation_epoch_end
    on_predict_epoch_end = on_validation_epoch_end


def results_by_question(
    data: VQADataModule,
    split: str,
    numbers: np.ndarray,
    confidences: np.ndarray | None = None,
    *,
    positions: np.ndarray | None = None,
) -> Results:
    """The answers to the questions of a split and their confidences, by question id.

    Answers are as people mostly type them ("t-shirt"). The official VQA accuracy normalizes them itself where people
    disagree, and compares letter by letter where all of them typed the same.

    Args:
        data: the questions that were answered.
        split: its name.
        numbers: see `CollectAnswers`, also for the next two.
        confidences: they must be finite.
        positions: of the answered questions in the split; all of them if not given.

    Raises:
        ValueError: a confidence is not a number.
    """
    records = data.split(split).records
    if positions is not None:
        records = [records[position] for position in positions.tolist()]
    if confidences is not None:
        check_finite(records, confidences)
    ids = [record.question_id for record in records]
    answers = data.text.vocabularies.answers
    texts = [answers.as_typed(text) for text in answers.texts(numbers.tolist())]
    shares = {} if confidences is None else dict(zip(ids, confidences.tolist(), strict=True))
    return Results(dict(zip(ids, texts, strict=True)), shares)


def check_finite(records: Sequence[Record], values: np.ndarray) -> None:
    """Check that the outputs of a model are finite.

    Args:
        records: (N,) the questions.
        values: (N, ...) the outputs.

    Raises:
        ValueError: some are not finite; the message names the first question and its image.
    """
    good = np.isfinite(values).reshape(len(records), -1).all(axis=1)
    if not good.all():
        record = records[int(np.flatnonzero(~good)[0])]
        raise ValueError(
            f"the model's output for {np.count_nonzero(~good)} of {len(records)} questions is not a number, first for "
            f"question {record.question_id!r} about image {record.image_id!r}: the features of these images (coattn "
            "inspect) or the model's weights are damaged; nothing is written"
        )


@dataclass(frozen=True)
class Evaluation:
    """A model on a split.

    Attributes:
        scores: its accuracies.
        temperature: the one fitted here.
        error_before: expected calibration error of its confidences at temperature 1, in [0, 1]; ...
        error_after: ... and at `temperature`.
        num_calibration: questions the last three come from.
    """

    scores: Scores
    temperature: float
    error_before: float
    error_after: float
    num_calibration: int


@torch.inference_mode()
def evaluate(task: VQATask, data: VQADataModule, split: str, device: torch.device) -> Evaluation:
    """Score a model on a split and fit its temperature there; in float32 and uncompiled, as it will be used."""
    task = task.eval().to(device)
    num_questions = len(data.split(split).records)
    stride = math.ceil(num_questions * (data.num_answers or 1) / _MAX_LOGITS)
    positions, answers, highest, kept_logits, kept_targets = [], [], [], [], []
    # Without autocast a compiled model would be compiled again for this pass.
    with torch.compiler.set_stance("force_eager"):
        for batch in data.evaluation_loader(split, whole=True):
            batch = batch.to(device)
            outcome = task.objective.outcome(task.model, batch)
            positions.append(batch.positions.cpu())
            answers.append(outcome.answers.cpu())
            highest.append(outcome.logits.amax(dim=1).cpu())  # not finite if any logit is NaN or infinitely high
            kept = batch.positions % stride == 0
            kept_logits.append(outcome.logits[kept].cpu())
            kept_targets.append(outcome.targets[kept].cpu())
    logits, targets = torch.cat(kept_logits), torch.cat(kept_targets)
    order = torch.cat(positions).argsort()
    numbers = torch.cat(answers)[order].numpy()
    check_finite(data.split(split).records, torch.cat(highest)[order].numpy())
    activation = task.objective.activation
    temperature = fit_temperature(logits, targets, activation)
    correct = targets.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
    errors = [
        expected_calibration_error(confidences(logits, value, activation).amax(dim=1), correct)
        for value in (1.0, temperature)
    ]
    records, metric = data.split(split).records, data.split(split).metric
    scores = score(results_by_question(data, split, numbers), records, metric)
    return Evaluation(scores, temperature, errors[0], errors[1], len(logits))
