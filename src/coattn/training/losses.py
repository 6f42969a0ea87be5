"""What training minimises, and how fast: losses on soft scores, learning rate schedules. Plain functions."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Loss = Literal["bce", "cross_entropy", "kl"]
Schedule = Literal["constant", "step", "cosine", "one_cycle"]

# What makes confidences of logits, for each loss.
ACTIVATIONS: dict[str, Literal["sigmoid", "softmax"]] = {"bce": "sigmoid", "cross_entropy": "softmax", "kl": "softmax"}

_START, _END = (
    1 / 25,
    1 / 25e4,
)  # of the one-cycle schedule, in parts of the peak (Smith & Topin 2017, arXiv 1708.07120)


def answer_losses(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The loss of each question. Training takes the mean over the questions of an optimiser step.

    - `bce`: binary cross-entropy of every answer with its soft score, *summed* over the answers: what bottom-up
      top-down attention and its successors train with. Their code then divides by the batch (hengyuan-hu: this mean) or
      by nothing (openvqa: with it learning rate, clipping and decay go with the batch size).
    - `cross_entropy`: the scores are made to sum to 1; with one answer, minus the log of its probability. A question
      without a known answer has loss 0.
    - `kl`: Kullback-Leibler divergence with the scores as they are, not made to sum to 1 (MFB and MFH in openvqa).

    Args:
        logits: (B, A).
        targets: (B, A) soft scores in [0, 1].
        loss: which.

    Returns:
        (B,)

    Raises:
        ValueError: unknown loss.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    if loss == "cross_entropy":
        share = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return -(share * F.log_softmax(logits, dim=1)).sum(dim=1)
    if loss == "kl":
        return F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="none").sum(dim=1)
    raise ValueError(f"loss must be one of {', '.join(ACTIVATIONS)}, got {loss!r}")


def learning_rate_factor(
    epoch: float,
    schedule: Schedule,
    *,
    num_epochs: float,
    warmup_epochs: float = 0.0,
    decay_epochs: tuple[float, ...] = (),
    decay_rate: float = 0.2,
) -> float:
    """The learning rate at a point of training, in parts of the one asked for (the peak).

    Args:
        epoch: epochs trained so far, fractions included.
        schedule: after the warm-up, "constant"; "step", times `decay_rate` at each of `decay_epochs`; or "cosine",
            down to 0. "one_cycle" goes up from 1/25 and down to 1/250000 of the peak, both as cosines.
        num_epochs: epochs of the whole training.
        warmup_epochs: epochs of the way up; linear from 0 except for "one_cycle".
        decay_epochs: see "step".
        decay_rate: see "step".

    Raises:
        ValueError: unknown schedule.
    """
    left = max(num_epochs - warmup_epochs, 1e-9)
    way = min(max((epoch - warmup_epochs) / left, 0.0), 1.0)
    if schedule == "one_cycle":
        if epoch < warmup_epochs:
            return _cosine(_START, 1.0, epoch / warmup_epochs)
        return _cosine(1.0, _END, way)
    warmup = min(epoch / warmup_epochs, 1.0) if warmup_epochs > 0 else 1.0
    if schedule == "constant":
        return warmup
    if schedule == "step":
        return warmup * decay_rate ** sum(epoch >= bound for bound in decay_epochs)
    if schedule == "cosine":
        return warmup * _cosine(1.0, 0.0, way)
    raise ValueError(f"schedule must be constant, step, cosine or one_cycle, got {schedule!r}")


def _cosine(start: float, end: float, way: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2
