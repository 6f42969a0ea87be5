"""Modular co-attention: self-attention (SA) and self-and-guided-attention (SGA) units as layers.

The paper's two architectures are orders of these layers and nothing else: *encoder-decoder* is all
`QuestionSelfAttention` layers and then all `RegionGuidedAttention` layers, *stacking* is one of each in turn, which is
`ModularCoAttention`.
"""

from __future__ import annotations

from torch import Tensor

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from .base import CoAttentionLayer, LayerOutput, named_maps


class QuestionSelfAttention(CoAttentionLayer):
    """SA unit (Yu et al. 2019, arXiv 1906.10770, figure 2a): the question reads itself, the regions pass through.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: number of heads; must divide `question_dim`.
        ffn_dim: inner width of the feed-forward step; four times the width when None.
        dropout: dropout on maps, updates and inside the feed-forward step.
        norm: name of the normalisation, see `layers.make_norm`.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        num_heads: int = 4,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim = question_dim, region_dim
        self.num_heads, self.ffn_dim, self.dropout, self.norm = num_heads, ffn_dim, dropout, norm
        self.read_itself = MultiHeadAttention(question_dim, num_heads=num_heads, dropout=dropout)
        self.residual = Residual(question_dim, dropout=dropout, norm=norm)
        self.ffn = FeedForward(question_dim, ffn_dim=ffn_dim, dropout=dropout, norm=norm)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`. Map: `question_to_question` (B, H, T, T)."""
        update, weights = self.read_itself(question, question, question_mask, need_weights=need_weights)
        question = self.ffn(self.residual(question, update))
        return LayerOutput(question, regions, named_maps(question_to_question=weights))


class RegionGuidedAttention(CoAttentionLayer):
    """SGA unit (Yu et al. 2019, figure 2b): the regions read themselves, then the question, which passes through.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: number of heads; must divide `region_dim`.
        ffn_dim: inner width of the feed-forward step; four times the width when None.
        dropout: dropout on maps, updates and inside the feed-forward step.
        norm: name of the normalisation, see `layers.make_norm`.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        num_heads: int = 4,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim = question_dim, region_dim
        self.num_heads, self.ffn_dim, self.dropout, self.norm = num_heads, ffn_dim, dropout, norm
        self.read_itself = MultiHeadAttention(region_dim, num_heads=num_heads, dropout=dropout)
        self.self_residual = Residual(region_dim, dropout=dropout, norm=norm)
        self.read_question = MultiHeadAttention(region_dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
        self.guided_residual = Residual(region_dim, dropout=dropout, norm=norm)
        self.ffn = FeedForward(region_dim, ffn_dim=ffn_dim, dropout=dropout, norm=norm)

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

        Maps: `regions_to_regions` (B, H, R, R), `regions_to_question` (B, H, R, T).
        """
        update, to_regions = self.read_itself(regions, regions, region_mask, need_weights=need_weights)
        regions = self.self_residual(regions, update)
        update, to_question = self.read_question(regions, question, question_mask, need_weights=need_weights)
        regions = self.ffn(self.guided_residual(regions, update))
        maps = named_maps(regions_to_regions=to_regions, regions_to_question=to_question)
        return LayerOutput(question, regions, maps)


class ModularCoAttention(CoAttentionLayer):
    """SA on the question, then SGA on the regions guided by that new question: one layer of MCAN's *stacking*.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: number of heads; must divide both widths.
        ffn_dim: inner width of the feed-forward steps; four times the side's width when None.
        dropout: dropout on maps, updates and inside the feed-forward steps.
        norm: name of the normalisation, see `layers.make_norm`.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        num_heads: int = 4,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim = question_dim, region_dim
        self.num_heads, self.ffn_dim, self.dropout, self.norm = num_heads, ffn_dim, dropout, norm
        self.question_layer = QuestionSelfAttention(
            question_dim, region_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, norm=norm
        )
        self.region_layer = RegionGuidedAttention(
            question_dim, region_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, norm=norm
        )

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`. Maps: those of the two units."""
        question, regions, question_maps = self.question_layer(
            question, regions, question_mask, region_mask, need_weights=need_weights
        )
        question, regions, region_maps = self.region_layer(
            question, regions, question_mask, region_mask, need_weights=need_weights
        )
        return LayerOutput(question, regions, question_maps | region_maps)
