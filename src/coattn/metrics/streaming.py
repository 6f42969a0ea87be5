"""Metrics for a training loop: torchmetrics classes that take batches and combine the states of all processes.

They only call the functions of this package. torchmetrics comes with the extra `train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.confidence import NUM_BINS, bins_of, confidence_statistic
from coattn.metrics.judgement import Submission
from coattn.metrics.score import judge_called, summarize
from coattn.metrics.scores import Scores


class AnswerAccuracy(Metric):
    """The mean worth of answers, in percent, by a metric that judges each question separately.

    Metrics that compare letter by letter (GQA's, CLEVR's, WUPS) take the spelling of an answer from all annotations at
    hand (`coattn.metrics.judgement.as_annotated`): here from those of a batch, in `SplitScores` from the split's.

    Args:
        metric: a name in `coattn.metrics.score.METRICS`.

    Raises:
        ValueError: the metric is unknown.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, metric: str = "vqa_accuracy", **options: Any) -> None:
        super().__init__(**options)
        self.judge = judge_called(metric)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], records: Sequence[Record]) -> None:
        """Add the answers to some questions."""
        worth = self.judge(Submission(records, answers)).worth
        self.total += float(np.nansum(worth))
        self.count += int((~np.isnan(worth)).sum())

    def compute(self) -> Tensor:
        """The mean in percent; NaN before any question."""
        return 100 * self.total / self.count


class SplitScores(Metric):
    """Every number of `coattn score` for a whole split, with those that are not means, such as consistency.

    The states are numbers only: the place of each question in the split and the place of its answer in the vocabulary.
    A question that several processes answered, because a distributed sampler repeats some, counts once.

    Args:
        records: the split's questions with their answers.
        answers: the vocabulary, as texts.
        metric: a name in `coattn.metrics.score.METRICS`.

    Raises:
        ValueError: the metric is unknown.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    positions: list[Tensor]
    numbers: list[Tensor]
    confidences: list[Tensor]

    def __init__(
        self, records: Sequence[Record], answers: Sequence[str], metric: str = "vqa_accuracy", **options: Any
    ) -> None:
        super().__init__(**options)
        self.records, self.answers, self.metric, self.judge = records, answers, metric, judge_called(metric)
        for name in ("positions", "numbers", "confidences"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Remove all answers. With the empty tensors a process without answers can take part."""
        super().reset()
        self.positions.append(torch.zeros(0, dtype=torch.int64, device=self.device))
        self.numbers.append(torch.zeros(0, dtype=torch.int64, device=self.device))
        self.confidences.append(torch.zeros(0, dtype=torch.float64, device=self.device))

    def update(self, positions: Tensor, numbers: Tensor, confidences: Tensor | None = None) -> None:
        """Add the answers to some questions.

        Args:
            positions: (B,) places of questions in the split.
            numbers: (B,) places of answers in the vocabulary.
            confidences: (B,) in [0, 1]; in every call or in none.
        """
        self.positions.append(positions.long())
        self.numbers.append(numbers.long())
        if confidences is not None:
            self.confidences.append(confidences.double())

    def scores(self) -> Scores:
        """The scores of the questions of this process; after `sync`, of all processes."""
        positions, places = np.unique(_array(self.positions), return_index=True)
        records = [self.records[position] for position in positions.tolist()]
        texts = [self.answers[number] for number in _array(self.numbers)[places].tolist()]
        ids = [record.question_id for record in records]
        shares = _array(self.confidences)
        sure = dict(zip(ids, shares[places].tolist(), strict=True)) if len(shares) else {}
        results = Results(dict(zip(ids, texts, strict=True)), sure)
        return summarize(self.judge(Submission(records, texts)), results, records, self.metric)

    def compute(self) -> dict[str, Tensor]:
        """All numbers, float64, named "all questions/vqa_accuracy", "answer type/yes/no" and so on."""
        return {
            f"{title}/{name}": torch.tensor(number.value, dtype=torch.float64, device=self.device)
            for title, block in self.scores().numbers.items()
            for name, number in block.items()
        }


class CalibrationError(Metric):
    """The expected calibration error, in [0, 1] (`coattn.metrics.confidence.calibration_error`).

    Args:
        num_bins: bins of equal width.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    gaps: Tensor
    count: Tensor

    def __init__(self, num_bins: int = NUM_BINS, **options: Any) -> None:
        super().__init__(**options)
        self.num_bins = num_bins
        self.add_state("gaps", torch.zeros(num_bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, worth: Tensor) -> None:
        """Add the confidences (B,) of some answers, and the worth of each (B,), both in [0, 1]."""
        bins = torch.from_numpy(bins_of(confidence.double().cpu().numpy(), self.num_bins)).to(self.gaps.device)
        self.gaps.index_add_(0, bins, (worth.double() - confidence.double()).to(self.gaps.device))
        self.count += len(confidence)

    def compute(self) -> Tensor:
        """The error; NaN before any answer."""
        return self.gaps.abs().sum() / self.count


class SelectivePrediction(Metric):
    """Calibration error, area under risk-coverage and coverage at risks, in percent (`confidence_statistic`)."""

    is_differentiable = False
    full_state_update = False
    confidence: list[Tensor]
    worth: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("confidence", "worth"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Remove all answers. With the empty tensors a process without answers can take part."""
        super().reset()
        for state in (self.confidence, self.worth):
            state.append(torch.zeros(0, dtype=torch.float64, device=self.device))

    def update(self, confidence: Tensor, worth: Tensor) -> None:
        """Add the confidences (B,) of some answers, and the worth of each (B,), both in [0, 1]."""
        self.confidence.append(confidence.double())
        self.worth.append(worth.double())

    def compute(self) -> dict[str, Tensor]:
        """The numbers by name.

        Raises:
            ValueError: there were no answers.
        """
        confidence, worth = _array(self.confidence), _array(self.worth)
        if not len(worth):
            raise ValueError("selective prediction of no answers; call update first")
        statistic = confidence_statistic(confidence, worth)
        values = statistic.compute(np.ones(len(worth), np.int64))
        return dict(zip(statistic.names, torch.from_numpy(values).to(self.device), strict=True))


def _array(state: list[Tensor] | Tensor) -> np.ndarray:
    return dim_zero_cat(state).cpu().numpy()
