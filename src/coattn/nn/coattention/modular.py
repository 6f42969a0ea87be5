"""Modular co-attention: self-attention (SA), guided attention (GA) and both at once (SGA), units as layers.

The paper's two architectures are orders of these layers: *encoder-decoder* is all `QuestionSelfAttention` layers and
then all `SelfGuidedAttention` layers, *stacking* is one of each in turn, which is `ModularCoAttention`.

The units compute real rows only, see `packing`, unless maps are asked for, which show padding too.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from torch import Tensor

from ..maps import name_maps
from ..packing import pack, unpack
from .base import AttentionLayer, LayerOutput


class QuestionSelfAttention(AttentionLayer):
    """SA unit (Yu et al. 2019, arXiv 1906.10770, figure 2a): the question attends to itself, the regions pass through::

        Q' = norm(Q + attend(Q -> Q)),  then a feed-forward step

    Constructor arguments: see `AttentionLayer`.
    """

    shares_images = True

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""
        self.self_attn = self.make_attention(question_dim, question_dim)
        self.residual = self.make_residual(question_dim)
        self.ffn = self.make_ffn(question_dim)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
        images: Tensor | None = None,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`. Map: `question_to_question` (B, H, T, T)."""
        q = question if need_weights else pack(question, question_mask)
        update, weights = self.self_attn(q, q, question_mask, query_mask=question_mask, need_weights=need_weights)
        q = self.ffn(self.residual(q, update))
        return LayerOutput(unpack(q, question_mask), regions, name_maps(question_to_question=weights))


class GuidedAttention(AttentionLayer):
    """GA unit (Yu et al. 2019, arXiv 1906.10770, figure 2b): the regions attend to the question, which passes through::

        V' = norm(V + attend(V -> Q)),  then a feed-forward step

    Constructor arguments: see `AttentionLayer`.
    """

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""
        self.question_attn = self.make_attention(region_dim, question_dim)
        self.guided_residual = self.make_residual(region_dim)
        self.ffn = self.make_ffn(region_dim)

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
        q = question if need_weights else pack(question, question_mask)
        v = regions if need_weights else pack(regions, region_mask)
        update, weights = self.question_attn(v, q, question_mask, query_mask=region_mask, need_weights=need_weights)
        v = self.ffn(self.guided_residual(v, update))
        return LayerOutput(question, unpack(v, region_mask), name_maps(regions_to_question=weights))


class SelfGuidedAttention(AttentionLayer):
    """SGA unit (Yu et al. 2019, arXiv 1906.10770, figure 3c): the regions attend to themselves, then to the question::

        V1 = norm(V  + attend(V  -> V))
        V2 = norm(V1 + attend(V1 -> Q)),  then a feed-forward step

    Constructor arguments: see `AttentionLayer`.
    """

    shares_images = True

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""
        self.self_attn = self.make_attention(region_dim, region_dim)
        self.self_residual = self.make_residual(region_dim)
        self.question_attn = self.make_attention(region_dim, question_dim)
        self.guided_residual = self.make_residual(region_dim)
        self.ffn = self.make_ffn(region_dim)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
        images: Tensor | None = None,
    ) -> LayerOutput:
        """See `CoAttentionLayer.forward`.

        Maps: `regions_to_regions` (B, H, R, R), `regions_to_question` (B, H, R, T).
        """
        q = question if need_weights else pack(question, question_mask)
        v = regions if need_weights else pack(regions, region_mask)
        # The regions attend to themselves.
        update, first = self.self_attn(v, v, region_mask, query_mask=region_mask, need_weights=need_weights)
        v = self.self_residual(v, update)
        if images is not None:  # from here on, the regions of an image differ from question to question
            v, region_mask = unpack(v, region_mask)[images], region_mask[images]
            v = v if need_weights else pack(v, region_mask)
            first = None if first is None else first[images]
        # The regions attend to the question.
        update, second = self.question_attn(v, q, question_mask, query_mask=region_mask, need_weights=need_weights)
        v = self.ffn(self.guided_residual(v, update))
        maps = name_maps(regions_to_regions=first, regions_to_question=second)
        return LayerOutput(question, unpack(v, region_mask), maps)


class ModularCoAttention(AttentionLayer):
    """SA on the question, then SGA on the regions guided by that new question: one layer of MCAN's *stacking*.

    Constructor arguments: see `AttentionLayer`.
    """

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the two units."""
        self.question_layer, self.region_layer = (
            unit(
                question_dim,
                region_dim,
                num_heads=self.num_heads,
                ffn_dim=self.ffn_dim,
                dropout=self.dropout,
                norm=self.norm,
            )
            for unit in (QuestionSelfAttention, SelfGuidedAttention)
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
