"""Training in bfloat16 beside training in float32."""

from unittest import mock

import torch
from torch.nn import functional as F

from coattn import models
from coattn.nn import MultiHeadAttention
from coattn.nn.layers import lengths_to_mask

STEPS = 50
ROUNDING = 2.0**-8  # of one bfloat16 number, relative


def losses(*, bf16: bool) -> torch.Tensor:
    """The loss (STEPS,) of each step of training on ragged batches, which a CPU packs; without dropout.

    `MultiHeadAttention.attend_few_keys` is used in bfloat16, also where it is not faster.
    """
    torch.manual_seed(0)
    model = models.mcan_small(
        num_words=50, region_dim=24, num_answers=12, dim=32, num_heads=2, num_layers=2, dropout=0.0
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    for _ in range(STEPS):
        question_mask = lengths_to_mask(torch.randint(1, 5, (16,)), 4)
        region_mask = lengths_to_mask(torch.randint(1, 25, (16,)), 24)
        question = torch.randint(1, 50, (16, 4)) * question_mask
        regions = torch.randn(16, 24, 24) * region_mask[:, :, None]
        targets = F.one_hot(question[:, 0] % 12, 12).float()  # the first word decides
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(
                question,
                regions,
                question_mask=question_mask,
                region_mask=region_mask,
            ).logits
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def test_losses_in_bfloat16_are_those_in_float32_within_its_rounding() -> None:
    exact = losses(bf16=False)
    attend = MultiHeadAttention.attend_few_keys
    with (
        mock.patch("coattn.nn.attention.FEW_KEYS", 0.6),
        mock.patch.object(MultiHeadAttention, "attend_few_keys", autospec=True, side_effect=attend) as attended,
    ):
        rounded = losses(bf16=True)
    assert attended.call_count == 2 * STEPS  # once in each layer
    assert exact[-1] < exact[0] / 1.5  # it learns
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=ROUNDING, atol=0)
