"""Modular co-attention: self-attention (SA), guided-attention (GA) and both at once (SGA), units as layers.

The paper's two architectures are orders of these layers and nothing else: *encoder-decoder* is all
`QuestionSelfAttention` layers and then all `RegionGuidedAttention` layers, *stacking* is one of each in turn, which is
`ModularCoAttention`.
"""

from __future__ import annotations

from torch import Tensor

from ..maps import name_maps
from .base import LayerOutput, ResidualCoAttention


class QuestionSelfAttention(ResidualCoAttention):
    """SA unit (Yu et al. 2019, arXiv 1906.10770, figure 2a): the question reads itself, the regions pass through."""

    def _build(self) -> None:
        self.read_itself = self._attention(self.question_dim, self.question_dim)
        self.residual = self._residual(self.question_dim)
        self.ffn = self._feed_forward(self.question_dim)

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
        return LayerOutput(question, regions, name_maps(question_to_question=weights))


class RegionQuestionAttention(ResidualCoAttention):
    """GA unit (Yu et al. 2019, figure 2b): the regions read the question, which passes through."""

    def _build(self) -> None:
        self.read_question = self._attention(self.region_dim, self.question_dim)
        self.guided_residual = self._residual(self.region_dim)
        self.ffn = self._feed_forward(self.region_dim)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`. Map: `regions_to_question` (B, H, R, T)."""
        update, weights = self.read_question(regions, question, question_mask, need_weights=need_weights)
        regions = self.ffn(self.guided_residual(regions, update))
        return LayerOutput(question, regions, name_maps(regions_to_question=weights))


class RegionGuidedAttention(RegionQuestionAttention):
    """SGA unit (Yu et al. 2019, figure 3c): the regions read themselves, and then the question, as in the GA unit."""

    def _build(self) -> None:
        self.read_itself = self._attention(self.region_dim, self.region_dim)
        self.self_residual = self._residual(self.region_dim)
        super()._build()

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
        update, weights = self.read_itself(regions, regions, region_mask, need_weights=need_weights)
        regions = self.self_residual(regions, update)
        question, regions, maps = super().forward(
            question, regions, question_mask, region_mask, need_weights=need_weights
        )
        return LayerOutput(question, regions, name_maps(regions_to_regions=weights) | maps)


class ModularCoAttention(ResidualCoAttention):
    """SA on the question, then SGA on the regions guided by that new question: one layer of MCAN's *stacking*."""

    def _build(self) -> None:
        def unit(kind: type[ResidualCoAttention]) -> ResidualCoAttention:
            return kind(
                self.question_dim,
                self.region_dim,
                num_heads=self.num_heads,
                ffn_dim=self.ffn_dim,
                dropout=self.dropout,
                norm=self.norm,
            )

        self.question_layer = unit(QuestionSelfAttention)
        self.region_layer = unit(RegionGuidedAttention)

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
