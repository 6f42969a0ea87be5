"""Confidences from logits, and the temperature that calibrates them (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from coattn.metrics.confidence import calibration_error

Activation = Literal["sigmoid", "softmax"]

_TEMPERATURES = (0.05, 20.0)
_NUM_HALVINGS = 24  # of an interval of 6 in log T: T is known to a millionth


def confidences(logits: Tensor, temperature: float, activation: Activation) -> Tensor:
    """The confidence of each answer, in [0, 1].

    Args:
        logits: (..., A).
        temperature: positive; a temperature above 1 lowers the confidences.
        activation: "sigmoid" for a model trained by binary cross-entropy, which judges each answer separately;
            "softmax" for a model trained by cross-entropy or KL divergence, whose confidences sum to 1.

    Raises:
        ValueError: the temperature is not positive, or the activation unknown.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, must be positive")
    scaled = logits / temperature
    if activation == "sigmoid":
        return scaled.sigmoid()
    if activation == "softmax":
        return scaled.softmax(dim=-1)
    raise ValueError(f"activation is {activation!r}, must be 'sigmoid' or 'softmax'")


def log_odds(log_probs: Tensor) -> Tensor:
    """`log(p / (1 - p))` of log-probabilities `log p`, kept finite where p is 1: the logit whose sigmoid is p."""
    log_probs = log_probs.clamp(max=-1e-7)
    return log_probs - torch.log(-torch.expm1(log_probs))


def fit_temperature(logits: Tensor, targets: Tensor, activation: Activation, *, batch_size: int = 4096) -> float:
    """The temperature T with the least loss of `logits / T`, for the logits of a model on validation questions.

    The loss is that of training: binary cross-entropy for "sigmoid", cross-entropy for "softmax",
    against soft scores. Both are convex in 1 / T, so the zero of the derivative is found by halving an interval,
    without a learning rate and with the same result every time. T is kept in [0.05, 20].

    A model without a mistake on N questions would get T = 0, and confidence 1 for everything. So the targets are first
    smoothed, as Platt (1999) does for the same reason: for "sigmoid" 1 becomes (P + 1) / (P + 2) and 0
    becomes 1 / (Q + 2), with P and Q the sums of the targets and of their complements; for "softmax" the share
    1 / (N + 2) of each target is spread over all answers. With thousands of questions the effect is small.

    Args:
        logits: (N, A), finite.
        targets: (N, A) soft scores in [0, 1], or (N,) int64, the number of the one right answer.
        activation: see `confidences`.
        batch_size: rows processed at a time; it bounds the memory and does not change the result.

    Raises:
        ValueError: the shapes do not match, there are no rows, or a logit is not finite.
    """
    if logits.ndim != 2 or len(logits) == 0 or targets.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"logits {tuple(logits.shape)} must be (N, A) with N > 0, and targets {tuple(targets.shape)} (N, A) or (N,)"
        )
    if not logits.isfinite().all():
        raise ValueError("a logit is not finite; the model's weights or features are damaged")

    smooth = _smoothing(targets, logits.shape[1], activation)

    def slope(inverse_temperature: float) -> float:
        """Derivative of the summed loss with respect to 1 / T: the expected minus the targeted sum of logits."""
        total = 0.0
        for z, target in zip(logits.split(batch_size), targets.split(batch_size), strict=True):
            z = z.float()
            y = smooth(torch.nn.functional.one_hot(target, z.shape[1]) if target.ndim == 1 else target.float())
            expected = confidences(z, 1 / inverse_temperature, activation)
            if activation == "softmax":
                expected = expected * y.sum(dim=1, keepdim=True)  # soft scores need not sum to 1
            total += ((expected - y) * z).sum(dtype=torch.float64).item()
        return total

    low, high = (math.log(1 / temperature) for temperature in reversed(_TEMPERATURES))
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def _smoothing(targets: Tensor, num_answers: int, activation: Activation) -> Callable[[Tensor], Tensor]:
    """Platt's correction, as a function of (n, A) targets."""
    if activation == "softmax":
        doubt = 1 / (len(targets) + 2)
        return lambda y: (1 - doubt) * y + doubt / num_answers * y.sum(dim=1, keepdim=True)
    positive = len(targets) if targets.ndim == 1 else targets.sum(dtype=torch.float64).item()
    low = 1 / (len(targets) * num_answers - positive + 2)
    high = (positive + 1) / (positive + 2)
    return lambda y: low + (high - low) * y


def expected_calibration_error(confidence: Tensor, correct: Tensor, *, num_bins: int = 15) -> float:
    """`coattn.metrics.confidence.calibration_error` of tensors: the gap between confidence and accuracy.

    Args:
        confidence: (N,) in [0, 1], of the best answer to each question.
        correct: (N,) in [0, 1], the worth of that answer.
        num_bins: number of bins of equal width.

    Returns:
        The error in [0, 1]; 0 is perfect.

    Raises:
        ValueError: the shapes differ or are not (N,), N is 0, or a value is outside [0, 1].
    """
    if confidence.ndim != 1 or confidence.shape != correct.shape or len(confidence) == 0:
        raise ValueError(
            f"confidence {tuple(confidence.shape)} and correct {tuple(correct.shape)} must both be (N,) with N > 0"
        )
    confidence, correct = confidence.double(), correct.double()
    for name, values in (("confidence", confidence), ("correct", correct)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"{name} must be in [0, 1], got values from {values.min().item()} to {values.max().item()}"
            )
    return calibration_error(confidence.cpu().numpy(), correct.cpu().numpy(), num_bins=num_bins)
