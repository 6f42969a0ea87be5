from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from coattn.training.objectives import answer_losses
from coattn.training.optim import learning_rate_factor

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.0, 0.6], [0.0, 0.0, 0.0]], dtype=torch.float64)


def test_bce_is_the_mean_times_the_number_of_answers() -> None:
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS) * 3  # as hengyuan-hu writes it
    torch.testing.assert_close(answer_losses(LOGITS, TARGETS, "bce").mean(), expected)


def test_cross_entropy_of_one_answer_is_torchs_and_of_none_is_zero() -> None:
    losses = answer_losses(LOGITS, TARGETS, "cross_entropy")
    torch.testing.assert_close(losses[0], F.cross_entropy(LOGITS[0], torch.tensor(0)))
    torch.testing.assert_close(losses[1], F.cross_entropy(LOGITS[1], torch.tensor([1 / 3, 0, 2 / 3]).double()))
    assert losses[2] == 0


def test_kl_takes_the_scores_as_they_are() -> None:
    losses = answer_losses(LOGITS, TARGETS, "kl")
    log_p = LOGITS[1].log_softmax(0)
    expected = 0.3 * (math.log(0.3) - log_p[0]) + 0.6 * (math.log(0.6) - log_p[2])
    torch.testing.assert_close(losses[1], expected)
    assert losses[2] == 0


def test_unknown_loss() -> None:
    with pytest.raises(ValueError, match="one of bce, cross_entropy, kl, got 'mse'"):
        answer_losses(LOGITS, TARGETS, "mse")  # type: ignore[arg-type]


def test_one_cycle_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=0.2, cycle_momentum=False
    )
    for step in range(101):
        # Torch counts its 101 steps from 0 to 100, and its way up ends one step early, at 0.2 * 101 - 1.
        factor = learning_rate_factor(step / 10, "one_cycle", num_epochs=10, warmup_epochs=1.92)
        assert factor == pytest.approx(scheduler.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("epoch", "schedule", "expected"),
    [
        (0, "constant", 0.0),
        (1, "constant", 0.5),
        (5, "constant", 1.0),
        (1, "step", 0.5),
        (5.9, "step", 1.0),
        (6, "step", 0.2),
        (9, "step", 0.04),
        (2, "cosine", 1.0),
        (6, "cosine", 0.5),
        (10, "cosine", 0.0),
        (11, "cosine", 0.0),
        (1, "exponential", 0.5 * 0.2 ** (1 / 4)),
        (8, "exponential", 0.04),
        (0, "one_cycle", 0.04),
        (2, "one_cycle", 1.0),
        (10, "one_cycle", 4e-6),
    ],
)
def test_schedules_at_known_points(epoch: float, schedule: str, expected: float) -> None:
    factor = learning_rate_factor(
        epoch,
        schedule,  # type: ignore[arg-type]
        num_epochs=10,
        warmup_epochs=2,
        decay_epochs=(6, 8),
        decay_rate=0.2,
        decay_every=4,
    )
    assert factor == pytest.approx(expected)


def test_without_warmup_and_without_end() -> None:
    assert learning_rate_factor(0, "constant", num_epochs=math.inf) == 1
    assert learning_rate_factor(0, "one_cycle", num_epochs=5) == 1
    with pytest.raises(ValueError, match="got 'linear'"):
        learning_rate_factor(0, "linear", num_epochs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("warmup_epochs", "stairs"),
    [(0, [1, 1]), (1, [1 / 2, 1]), (3, [1 / 4, 2 / 4, 3 / 4, 1, 1]), (5, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])],
)
def test_stairs_of_the_warmup_are_even(warmup_epochs: int, stairs: list[float]) -> None:
    for epoch, height in enumerate(stairs):
        for part in (0, 0.5, 0.999):
            factor = learning_rate_factor(
                epoch + part, "constant", num_epochs=9, warmup_epochs=warmup_epochs, warmup="stairs"
            )
            assert factor == height
