"""What training minimises, and how fast: losses on soft scores, learning rate schedules. Plain functions."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

Loss = Literal["bce", "cross_entropy", "kl"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "step", "exponential", "cosine", "one_cycle"]
Warmup = Literal["linear", "stairs"]

# What makes confidences of logits, for each loss.
ACTIVATIONS: dict[str, Literal["sigmoid", "softmax"]] = {"bce": "sigmoid", "cross_entropy": "softmax", "kl": "softmax"}

_START, _END = (
    1 / 25,
    1 / 25e4,
)  # of the one-cycle schedule, in parts of the peak (Smith & Topin 2017, arXiv 1708.07120)


def answer_losses(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The loss of each question. Training takes the mean, or the sum, over the questions of an optimiser step.

    - `bce`: binary cross-entropy of every answer with its soft score, *summed* over the answers: what bottom-up
      top-down attention and its successors train with. Their code then divides by the batch (hengyuan-hu: the mean) or
      by nothing (openvqa, DCN: the sum; learning rate and clipping then go with the batch size).
    - `cross_entropy`: the scores are made to sum to 1; with one answer, minus the log of its probability. A question
      without a known answer has loss 0.
    - `kl`: Kullback-Leibler divergence with the scores as they are, not made to sum to 1: with the data's targets
      "share", what MFB and MFH train with in openvqa.

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
    warmup: Warmup = "linear",
    decay_epochs: tuple[float, ...] = (),
    decay_rate: float = 0.2,
    decay_every: float = 1.0,
) -> float:
    """The learning rate at a point of training, in parts of the one asked for (the peak).

    Args:
        epoch: epochs trained so far, fractions included.
        schedule: after the warm-up, "constant"; "step", times `decay_rate` at each of `decay_epochs`; "exponential",
            smoothly times `decay_rate` in each `decay_every` epochs, counted from the start; or "cosine", down to 0.
            "one_cycle" goes up from 1/25 and down to 1/250000 of the peak, both as cosines.
        num_epochs: epochs of the whole training.
        warmup_epochs: epochs of the way up.
        warmup: "linear" from 0, or in "stairs": of W epochs the first has 1/(W+1) of the peak, the next 2/(W+1), and so
            on, as openvqa has it for W = 3. (For every other W its code leaves these stairs: it passes the peak, up to
            three times as high, or jumps there from half of it. That fault is not reproduced.) "one_cycle" has its own.
        decay_epochs: see "step".
        decay_rate: see "step" and "exponential".
        decay_every: see "exponential".

    Raises:
        ValueError: unknown schedule or warm-up.
    """
    left = max(num_epochs - warmup_epochs, 1e-9)
    way = min(max((epoch - warmup_epochs) / left, 0.0), 1.0)
    if schedule == "one_cycle":
        if epoch < warmup_epochs:
            return _cosine(_START, 1.0, epoch / warmup_epochs)
        return _cosine(1.0, _END, way)
    height = _warmup(epoch, warmup_epochs, warmup)
    if schedule == "constant":
        return height
    if schedule == "step":
        return height * decay_rate ** sum(epoch >= bound for bound in decay_epochs)
    if schedule == "exponential":
        return height * decay_rate ** (epoch / decay_every)
    if schedule == "cosine":
        return height * _cosine(1.0, 0.0, way)
    raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}, got {schedule!r}")


def _warmup(epoch: float, warmup_epochs: float, kind: Warmup) -> float:
    if kind not in get_args(Warmup):
        raise ValueError(f"warmup must be one of {', '.join(get_args(Warmup))}, got {kind!r}")
    if epoch >= warmup_epochs:
        return 1.0
    return (math.floor(epoch) + 1) / (warmup_epochs + 1) if kind == "stairs" else epoch / warmup_epochs


def _cosine(start: float, end: float, way: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2
