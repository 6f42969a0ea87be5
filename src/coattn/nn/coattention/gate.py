"""A question gate: the question as a whole scales the features of the regions.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from torch import Tensor

from ..layers import AttentionPooling, Residual
from ..maps import name_maps
from .base import CoAttentionLayer, LayerOutput


class QuestionGate(CoAttentionLayer):
    """`V' = norm(V + V * W q)`, with q the question pooled by attention; the question passes through.

    Attention adds its result, so that "the red object" and "closest" can only be combined by the following feed-forward
    step; the gate multiplies. On Sort-of-CLEVR, in one trial of one seed each, a stack with gates between its layers
    answered 97.1 % of the binary validation questions after 270 seconds, and 93.9 % without them. No paper of this
    field has this layer. It follows the feature-wise modulation of FiLM (Perez et al. 2017, arXiv 1709.07871), without
    a shift and with a residual.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: maps of the pooling; their pooled vectors are concatenated before W.
        dropout: dropout in the pooling and on the update.
        norm: name of the norm, see `layers.make_norm`.
    """

    def __init__(
        self, question_dim: int, region_dim: int, *, num_heads: int = 1, dropout: float = 0.0, norm: str = "layer"
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim = question_dim, region_dim
        self.num_heads, self.dropout, self.norm = num_heads, dropout, norm
        self.pool = AttentionPooling(
            question_dim, hidden_dim=question_dim, output_dim=region_dim, num_glimpses=num_heads, dropout=dropout
        )
        self.residual = Residual(region_dim, dropout=dropout, norm=norm)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`. Map: `regions_to_question` (B, H, R, T), alike for all regions."""
        gate, weights = self.pool(question, question_mask)  # (B, region_dim), (B, H, 1, T)
        maps = name_maps(regions_to_question=weights.expand(-1, -1, regions.shape[1], -1))  # (B, H, R, T)
        regions = self.residual(regions, regions * gate[:, None])
        return LayerOutput(question, regions, maps if need_weights else {})
