"""Modular co-attention: self-attention (SA), guided attention (GA) and both at once (SGA), units as layers.

The paper's two architectures are orders of these layers: *encoder-decoder* is all `QuestionSelfAttention` layers and
then all `RegionGuidedAttention` layers, *stacking* is one of each in turn, which is `ModularCoAttention`.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from torch import Tensor

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from ..maps import name_maps
from ..packing import pack, unpack
from .base import CoAttentionLayer, LayerOutput


class QuestionSelfAttention(CoAttentionLayer):
    """SA unit (Yu et al. 2019, arXiv 1906.10770, figure 2a): the question attends to itself, the regions pass through::

        Q' = norm(Q + attend(Q -> Q)),  then a feed-forward step

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide `question_dim`.
        ffn_dim: inner width of the feed-forward steps; four times the width of the side when None.
        dropout: dropout on the attention weights, on updates, and inside the feed-forward steps.
        norm: name of the norm after each step, see `layers.make_norm`.

    Raises:
        ValueError: `num_heads` does not divide a width.
    """

    reads_regions = False

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
        self.self_attn = MultiHeadAttention(question_dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
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
        rows = question if need_weights else pack(question, question_mask)  # maps show padding too
        update, weights = self.self_attn(rows, rows, question_mask, query_mask=question_mask, need_weights=need_weights)
        rows = self.ffn(self.residual(rows, update))
        return LayerOutput(unpack(rows, question_mask), regions, name_maps(question_to_question=weights))


class RegionQuestionAttention(CoAttentionLayer):
    """GA unit (Yu et al. 2019, figure 2b): the regions attend to the question, which passes through::

        V' = norm(V + attend(V -> Q)),  then a feed-forward step

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide `region_dim`.
        ffn_dim: inner width of the feed-forward steps; four times the width of the side when None.
        dropout: dropout on the attention weights, on updates, and inside the feed-forward steps.
        norm: name of the norm after each step, see `layers.make_norm`.

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
        self.question_attn = MultiHeadAttention(region_dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
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
        """See `CoAttentionLayer.forward`. Map: `regions_to_question` (B, H, R, T)."""
        tokens, rows = question, regions
        if not need_weights:  # maps show padding too
            tokens, rows = pack(question, question_mask), pack(regions, region_mask)
        update, weights = self.question_attn(
            rows, tokens, question_mask, query_mask=region_mask, need_weights=need_weights
        )
        rows = self.ffn(self.guided_residual(rows, update))
        return LayerOutput(question, unpack(rows, region_mask), name_maps(regions_to_question=weights))


class RegionGuidedAttention(CoAttentionLayer):
    """SGA unit (Yu et al. 2019, figure 3c): the regions attend to themselves and then to the question::

        V1 = norm(V  + attend(V  -> V))
        V2 = norm(V1 + attend(V1 -> Q)),  then a feed-forward step

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide `region_dim`.
        ffn_dim: inner width of the feed-forward steps; four times the width of the side when None.
        dropout: dropout on the attention weights, on updates, and inside the feed-forward steps.
        norm: name of the norm after each step, see `layers.make_norm`.

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
        self.self_attn = MultiHeadAttention(region_dim, key_dim=region_dim, num_heads=num_heads, dropout=dropout)
        self.self_residual = Residual(region_dim, dropout=dropout, norm=norm)
        self.question_attn = MultiHeadAttention(region_dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
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
        rows = regions if need_weights else pack(regions, region_mask)  # maps show padding too
        update, weights = self.self_attn(rows, rows, region_mask, query_mask=region_mask, need_weights=need_weights)
        rows = self.self_residual(rows, update)
        output = self.attend_question(question, rows, question_mask, region_mask, need_weights=need_weights)
        return output._replace(maps=name_maps(regions_to_regions=weights) | output.maps)

    def attend_regions(self, regions: Tensor, region_mask: Tensor) -> Tensor:
        """The regions attend to themselves, `V1` (B, R, region_dim)."""
        rows = pack(regions, region_mask)
        update, _ = self.self_attn(rows, rows, region_mask, query_mask=region_mask)
        return unpack(self.self_residual(rows, update), region_mask)

    def attend_question(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """The regions `V1`, (B, R, region_dim) or packed, attend to the question. Map: `regions_to_question`."""
        tokens, rows = question, regions
        if not need_weights:
            tokens, rows = pack(question, question_mask), pack(regions, region_mask)
        update, weights = self.question_attn(
            rows, tokens, question_mask, query_mask=region_mask, need_weights=need_weights
        )
        rows = self.ffn(self.guided_residual(rows, update))
        return LayerOutput(question, unpack(rows, region_mask), name_maps(regions_to_question=weights))


class ModularCoAttention(CoAttentionLayer):
    """SA on the question, then SGA on the regions guided by that new question: one layer of MCAN's *stacking*.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide both widths.
        ffn_dim: inner width of the feed-forward steps; four times the width of the side when None.
        dropout: dropout on the attention weights, on updates, and inside the feed-forward steps.
        norm: name of the norm after each step, see `layers.make_norm`.

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

    def attend_regions(self, regions: Tensor, region_mask: Tensor) -> Tensor:
        """The regions attend to themselves, as in `RegionGuidedAttention`."""
        return self.region_layer.attend_regions(regions, region_mask)

    def attend_question(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """SA on the question, which the regions then attend to. Maps: `question_to_question`, `regions_to_question`."""
        question, regions, question_maps = self.question_layer(
            question, regions, question_mask, region_mask, need_weights=need_weights
        )
        question, regions, region_maps = self.region_layer.attend_question(
            question, regions, question_mask, region_mask, need_weights=need_weights
        )
        return LayerOutput(question, regions, question_maps | region_maps)
