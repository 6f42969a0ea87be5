from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coattn.metrics.calibration import confidences, expected_calibration_error, fit_temperature


def loss(logits: Tensor, targets: Tensor, temperature: float, activation: str) -> float:
    """The training loss, from torch's own functions."""
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits / temperature, targets, reduction="sum").item()
    return -(targets * F.log_softmax(logits / temperature, dim=1)).sum().item()


def sampled(activation: str, temperature: float, *, rows: int = 20_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and targets drawn with the probabilities that `logits / temperature` states."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 5, generator=generator) * 3
    if activation == "sigmoid":
        return logits, torch.bernoulli((logits / temperature).sigmoid(), generator=generator)
    return logits, torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]


def test_confidences() -> None:
    logits = torch.tensor([[2.0, 0.0], [-2.0, 2.0]])
    torch.testing.assert_close(confidences(logits, 2.0, "sigmoid"), 1 / (1 + torch.exp(-logits / 2)))
    exponentials = torch.exp(logits / 2)
    expected = exponentials / exponentials.sum(1, keepdim=True)
    torch.testing.assert_close(confidences(logits, 2.0, "softmax"), expected)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be positive"):
            confidences(logits, wrong, "softmax")
    with pytest.raises(ValueError, match="'tanh', must be"):
        confidences(logits, 1.0, "tanh")  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_targets_is_found(activation: str, temperature: float) -> None:
    logits, targets = sampled(activation, temperature)
    assert fit_temperature(logits, targets, activation) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_no_other_temperature_has_a_smaller_loss_on_soft_scores(activation: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(300, 7, generator=generator, dtype=torch.float64) * 4
    noise = torch.randn(300, 7, generator=generator, dtype=torch.float64)
    targets = ((logits / 3 + noise).sigmoid() * 10).round() / 10
    targets[:20] = 0  # questions whose answers are all outside the vocabulary
    best = fit_temperature(logits, targets, activation)
    if activation == "softmax":
        targets = targets * 301 / 302 + targets.mean(1, keepdim=True) / 302
    else:
        low, high = 1 / ((1 - targets).sum() + 2), 1 - 1 / (targets.sum() + 2)
        targets = targets * high + (1 - targets) * low
    assert 0.1 < best < 10
    least = loss(logits, targets, best, activation)
    grid = torch.logspace(math.log10(0.05), math.log10(20), 400).tolist()
    assert least <= min(loss(logits, targets, t, activation) for t in grid) + 1e-9
    for near in (best * 0.999, best * 1.001):
        assert loss(logits, targets, near, activation) > least


def test_class_numbers_and_one_hot_targets_are_the_same_and_batches_change_nothing() -> None:
    logits, targets = sampled("softmax", 1.7, rows=1000)
    best = fit_temperature(logits, targets, "softmax")
    assert fit_temperature(logits, F.one_hot(targets, 5).float(), "softmax") == pytest.approx(best, rel=1e-5)
    assert fit_temperature(logits, targets, "softmax", batch_size=7) == pytest.approx(best, rel=1e-5)
    assert fit_temperature(logits.bfloat16(), targets, "softmax") == pytest.approx(best, rel=0.01)


def test_a_model_without_mistake_is_not_sure_of_everything() -> None:
    # Four questions, four answers, all right. Softmax: the right answer should get 5/6 + 1/6/4 = 7/8, so e^(3/T) = 21.
    assert fit_temperature(torch.eye(4) * 3, torch.arange(4), "softmax") == pytest.approx(3 / math.log(21), rel=1e-4)
    # Sigmoid: 4 (p - 5/6) = 12 (1 - p - 1/14) for p = sigmoid(3 / T), so p = 19/21.
    temperature = fit_temperature(torch.eye(4) * 6 - 3, torch.eye(4), "sigmoid")
    assert temperature == pytest.approx(3 / math.log(19 / 2), rel=1e-4)
    assert fit_temperature(torch.eye(4) * 6 - 3, torch.arange(4), "sigmoid") == pytest.approx(temperature)


def test_a_model_without_sense_stays_in_bounds() -> None:
    assert fit_temperature(torch.eye(4) * 3, torch.arange(4).roll(1), "softmax") == pytest.approx(20, rel=1e-3)
    assert fit_temperature(torch.eye(4) * 1e-3, torch.arange(4), "softmax") == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2, 2), r"\(3, 2\).*\(2, 2\)"),
        (torch.zeros(3), torch.zeros(3), r"must be \(N, A\)"),
        (torch.zeros(0, 2), torch.zeros(0, 2), "N > 0"),
        (torch.tensor([[math.nan, 0.0]]), torch.zeros(1, 2), "not finite"),
        (torch.tensor([[math.inf, 0.0]]), torch.zeros(1, 2), "not finite"),
    ],
)
def test_temperature_refuses_what_it_cannot_fit(logits: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, targets, "sigmoid")


def test_calibration_error_equals_an_independent_computation() -> None:
    chance = np.random.default_rng(0)
    confidence = chance.random(5000)
    correct = chance.choice([0, 0.3, 0.6, 0.9, 1], 5000)
    for num_bins in (1, 10, 15):
        edges = np.linspace(0, 1, num_bins + 1)
        error = 0.0
        for low, high in itertools.pairwise(edges):
            inside = (confidence > low) & (confidence <= high)
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
        got = expected_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), num_bins=num_bins)
        assert got == pytest.approx(error, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    confidence = torch.tensor([0.0, 0.2, 0.25, 0.5, 0.75, 1.0])
    correct = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.3, 1.0])
    # Two bins: {0, .2, .25, .5} with gap |2 - .95|, {.75, 1} with gap |1.3 - 1.75|.
    assert expected_calibration_error(confidence, correct, num_bins=2) == pytest.approx((1.05 + 0.45) / 6)
    assert expected_calibration_error(torch.ones(4), torch.ones(4)) == 0
    assert expected_calibration_error(torch.ones(4), torch.zeros(4)) == 1


def test_a_fitted_temperature_lowers_the_calibration_error() -> None:
    logits, targets = sampled("softmax", 2.5)
    top = logits.argmax(1)
    correct = (top == targets).float()

    def error(temperature: float) -> float:
        return expected_calibration_error(confidences(logits, temperature, "softmax").amax(1), correct)

    assert error(1.0) > 0.1
    assert error(fit_temperature(logits, targets, "softmax")) < 0.02


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"\(3,\).*\(2,\)"),
        (torch.zeros(0), torch.zeros(0), "N > 0"),
        (torch.tensor([1.1]), torch.zeros(1), "confidence must be in"),
        (torch.tensor([math.nan]), torch.zeros(1), "confidence must be in"),
        (torch.zeros(1), torch.tensor([60.0]), "correct must be in"),
    ],
)
def test_calibration_error_refuses_bad_values(confidence: Tensor, correct: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidence, correct)
