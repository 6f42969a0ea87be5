"""Alternating co-attention: one side after the other, each step guided by what the last one found."""

from __future__ import annotations

from torch import Tensor

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from .base import CoAttentionLayer, LayerOutput, named_maps


class AlternatingCoAttention(CoAttentionLayer):
    """Alternating co-attention as a layer over sequences (after Lu et al. 2016, arXiv 1606.00061, eq. 6).

    The paper's three steps, in its order::

        Q1 = norm(Q  + attend(Q  -> Q))     the question reads itself
        V1 = norm(V  + attend(V  -> Q1))    the regions read that new question
        Q2 = norm(Q1 + attend(Q1 -> V1))    the question reads the new regions

    then a feed-forward step on each side. Differences from the paper, where each step pools a side to one vector that
    guides the next: the sides stay sequences, guidance is multi-head attention, with residual and norm.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: heads of each attention; must divide both widths.
        ffn_dim: inner width of the feed-forward steps; four times the side's width when None.
        dropout: dropout on maps, updates and inside the feed-forward steps.
        norm: name of the normalisation, see `layers.make_norm`.

    Raises:
        ValueError: `num_heads` does not divide a width.
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
        self.read_question = MultiHeadAttention(region_dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
        self.read_regions = MultiHeadAttention(question_dim, key_dim=region_dim, num_heads=num_heads, dropout=dropout)
        self.first_residual = Residual(question_dim, dropout=dropout, norm=norm)
        self.second_residual = Residual(region_dim, dropout=dropout, norm=norm)
        self.third_residual = Residual(question_dim, dropout=dropout, norm=norm)
        self.question_ffn = FeedForward(question_dim, ffn_dim=ffn_dim, dropout=dropout, norm=norm)
        self.region_ffn = FeedForward(region_dim, ffn_dim=ffn_dim, dropout=dropout, norm=norm)

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

        Maps, one per step: `question_to_question` (B, H, T, T), `regions_to_question` (B, H, R, T) and
        `question_to_regions` (B, H, T, R).
        """
        update, first = self.read_itself(question, question, question_mask, need_weights=need_weights)
        question = self.first_residual(question, update)
        update, second = self.read_question(regions, question, question_mask, need_weights=need_weights)
        regions = self.second_residual(regions, update)
        update, third = self.read_regions(question, regions, region_mask, need_weights=need_weights)
        question = self.third_residual(question, update)
        maps = named_maps(question_to_question=first, regions_to_question=second, question_to_regions=third)
        return LayerOutput(self.question_ffn(question), self.region_ffn(regions), maps)
