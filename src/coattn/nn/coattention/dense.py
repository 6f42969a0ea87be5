"""Dense symmetric co-attention: every word attends to every region and the reverse, or to nothing at all.

Letters: B batch, T question tokens, R regions, K learnable rows, H heads, d head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention import check_heads, masked_softmax, split_heads
from ..layers import Dropout
from ..maps import name_maps
from .base import CoAttentionLayer, LayerOutput


class DenseCoAttention(CoAttentionLayer):
    """Dense symmetric co-attention (Nguyen & Okatani 2018, arXiv 1804.00775, "Dense Co-Attention Layer").

    K learnable rows precede each side, so that a word or region can attend to nothing in particular. Per head, with Q~
    and V~ the sides with those rows::

        A   = (Q~ W_q)(V~ W_v)^T / sqrt(d)                 one affinity (K+T, K+R)
        Q'  = Q + dropout(relu([Q, mean_h softmax(A)   V~] U_q))
        V'  = V + dropout(relu([V, mean_h softmax(A^T) Q~] U_v))

    both from the old Q and V. As in the authors' code the attended values are whole vectors without a projection, and
    no norm follows. The maps leave out the added rows, so that a row of a map may sum to less than 1.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: heads H of the affinity; must divide the smaller width, in which it is taken.
        num_nothing: number K of learnable rows, which a word or region attends to instead of the other side.
        dropout: dropout on the updates.

    Raises:
        ValueError: `num_heads` does not divide the smaller width.
    """

    def __init__(
        self, question_dim: int, region_dim: int, *, num_heads: int = 4, num_nothing: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        affinity_dim = min(question_dim, region_dim)
        check_heads(affinity_dim, num_heads)
        self.question_dim, self.region_dim = question_dim, region_dim
        self.num_heads, self.num_nothing, self.dropout = num_heads, num_nothing, dropout
        self.question_nothing = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_nothing, question_dim)))
        self.region_nothing = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_nothing, region_dim)))
        self.question_affinity = nn.Linear(question_dim, affinity_dim, bias=False)
        self.region_affinity = nn.Linear(region_dim, affinity_dim, bias=False)
        self.question_update = nn.Linear(question_dim + region_dim, question_dim)
        self.region_update = nn.Linear(region_dim + question_dim, region_dim)
        self.drop = Dropout(dropout)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`.

        Maps: `question_to_regions` (B, H, T, R), `regions_to_question` (B, H, R, T).
        """
        k = self.num_nothing
        # The learnable rows precede each side.
        q, q_mask = _prepend(self.question_nothing, question, question_mask)  # (B, K+T, question_dim)
        v, v_mask = _prepend(self.region_nothing, regions, region_mask)  # (B, K+R, region_dim)
        # One affinity, softmaxed along its rows and along its columns; the learnable rows do not attend.
        q_heads = split_heads(self.question_affinity(q), self.num_heads)
        v_heads = split_heads(self.region_affinity(v), self.num_heads)
        affinity = q_heads @ v_heads.transpose(-2, -1) / math.sqrt(q_heads.shape[-1])  # (B, H, K+T, K+R)
        to_regions = masked_softmax(affinity[:, :, k:], v_mask[:, None, None])  # (B, H, T, K+R)
        to_question = masked_softmax(affinity[..., k:].transpose(-2, -1), q_mask[:, None, None])  # (B, H, R, K+T)
        # All heads attend to the same values, so that averaging the maps first saves H - 1 products.
        from_regions = to_regions.mean(1) @ v  # (B, T, region_dim)
        from_question = to_question.mean(1) @ q  # (B, R, question_dim)
        # Each side is updated from itself and from what it attended to.
        new_question = question + self.drop(self.question_update(torch.cat((question, from_regions), -1)).relu())
        new_regions = regions + self.drop(self.region_update(torch.cat((regions, from_question), -1)).relu())
        maps = name_maps(question_to_regions=to_regions[..., k:], regions_to_question=to_question[..., k:])
        return LayerOutput(new_question, new_regions, maps if need_weights else {})


def _prepend(rows: Tensor, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Put the learnable `rows` (K, D) before each `sequence` (B, T, D), as real elements."""
    rows = rows.to(sequence.dtype).expand(sequence.shape[0], -1, -1)  # (B, K, D)
    return torch.cat((rows, sequence), 1), torch.cat((mask.new_ones(rows.shape[:2]), mask), 1)
