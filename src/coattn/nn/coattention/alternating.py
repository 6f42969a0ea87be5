"""Alternating co-attention: one side after the other, each step guided by what the last one found."""

from __future__ import annotations

from torch import Tensor

from .base import LayerOutput, ResidualCoAttention, named_maps


class AlternatingCoAttention(ResidualCoAttention):
    """Alternating co-attention as a layer over sequences (after Lu et al. 2016, arXiv 1606.00061, eq. 6).

    The paper's three steps, in its order::

        Q1 = norm(Q  + attend(Q  -> Q))     the question reads itself
        V1 = norm(V  + attend(V  -> Q1))    the regions read that new question
        Q2 = norm(Q1 + attend(Q1 -> V1))    the question reads the new regions

    then a feed-forward step on each side. Differences from the paper, where each step pools a side to one vector that
    guides the next: the sides stay sequences, guidance is multi-head attention, with residual and norm.
    """

    def _build(self) -> None:
        self.read_itself = self._attention(self.question_dim, self.question_dim)
        self.read_question = self._attention(self.region_dim, self.question_dim)
        self.read_regions = self._attention(self.question_dim, self.region_dim)
        self.first_residual = self._residual(self.question_dim)
        self.second_residual = self._residual(self.region_dim)
        self.third_residual = self._residual(self.question_dim)
        self.question_ffn = self._feed_forward(self.question_dim)
        self.region_ffn = self._feed_forward(self.region_dim)

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
