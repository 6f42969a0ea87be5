"""Alternating co-attention: one side after the other, each step guided by the result of the last one.

Letters: B batch, T question tokens, R regions, N elements of either side, H heads.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..attention import masked_softmax
from ..layers import Dropout
from ..maps import name_maps
from .base import AttentionLayer, CoAttentionPooling, LayerOutput, PoolingOutput


class AlternatingCoAttention(AttentionLayer):
    """Alternating co-attention as a layer over sequences (after Lu et al. 2016, arXiv 1606.00061, eq. 6).

    The paper's three steps, in its order::

        Q1 = norm(Q  + attend(Q  -> Q))     the question attends to itself
        V1 = norm(V  + attend(V  -> Q1))    the regions attend to that new question
        Q2 = norm(Q1 + attend(Q1 -> V1))    the question attends to the new regions

    then a feed-forward step on each side. Differences from the paper, where each step pools a side to one vector that
    guides the next: the sides stay sequences, and guidance is multi-head attention with residual and norm.

    Constructor arguments: see `AttentionLayer`.
    """

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""
        self.self_attn = self.make_attention(question_dim, question_dim)
        self.question_attn = self.make_attention(region_dim, question_dim)
        self.region_attn = self.make_attention(question_dim, region_dim)
        self.first_residual = self.make_residual(question_dim)
        self.second_residual = self.make_residual(region_dim)
        self.third_residual = self.make_residual(question_dim)
        self.question_ffn = self.make_ffn(question_dim)
        self.region_ffn = self.make_ffn(region_dim)

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
        # The question attends to itself.
        update, first = self.self_attn(question, question, question_mask, need_weights=need_weights)
        question = self.first_residual(question, update)
        # The regions attend to the new question.
        update, second = self.question_attn(regions, question, question_mask, need_weights=need_weights)
        regions = self.second_residual(regions, update)
        # The question attends to the new regions.
        update, third = self.region_attn(question, regions, region_mask, need_weights=need_weights)
        question = self.third_residual(question, update)
        maps = name_maps(question_to_question=first, regions_to_question=second, question_to_regions=third)
        return LayerOutput(self.question_ffn(question), self.region_ffn(regions), maps)


class GuidedPooling(nn.Module):
    """The paper's attention operation `A(X; g)` (Lu et al. 2016, arXiv 1606.00061, eq. 6), with biases.

    With X (N, dim) as rows: `H = tanh(X W_x + 1 (W_g g)^T)`, `a = softmax(H w)`, `A = a^T X`.

    Args:
        dim: width of the sequence.
        hidden_dim: width of H.
        guide_dim: width of the guiding vector g; None for attention without one.
        dropout: dropout on H.
    """

    def __init__(self, dim: int, *, hidden_dim: int, guide_dim: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Linear(dim, hidden_dim)
        self.guide = None if guide_dim is None else nn.Linear(guide_dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool `x` (B, N, dim) over `mask` (B, N), by `guide` (B, guide_dim) -> vector (B, dim), map (B, 1, 1, N)."""
        hidden = self.features(x)  # (B, N, hidden_dim)
        if self.guide is not None:
            hidden = hidden + self.guide(guide)[:, None]
        weights = masked_softmax(self.score(self.drop(hidden.tanh())).mT, mask[:, None])  # (B, 1, N)
        return (weights @ x)[:, 0], weights[:, None]


class AlternatingPooling(CoAttentionPooling):
    """Alternating co-attention as the paper's pooling (Lu et al. 2016, arXiv 1606.00061, section 3.3, eq. 6).

    With words Q and regions V, and `GuidedPooling` as A::

        s = A(Q; 0)     the question by itself
        v = A(V; s)     the regions, guided by it
        q = A(Q; v)     the question again, guided by the image

    As in the authors' code the three steps have separate weights, also the two on the question.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: width inside each step.
        dropout: dropout inside each step.
    """

    def __init__(self, question_dim: int, region_dim: int, *, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.hidden_dim = question_dim, region_dim, hidden_dim
        self.dropout = dropout
        self.first = GuidedPooling(question_dim, hidden_dim=hidden_dim, dropout=dropout)
        self.second = GuidedPooling(region_dim, hidden_dim=hidden_dim, guide_dim=question_dim, dropout=dropout)
        self.third = GuidedPooling(question_dim, hidden_dim=hidden_dim, guide_dim=region_dim, dropout=dropout)

    def forward(self, question: Tensor, regions: Tensor, question_mask: Tensor, region_mask: Tensor) -> PoolingOutput:
        """See `CoAttentionPooling.forward`.

        Maps, one per step: `first.question` (B, 1, 1, T), `regions` (B, 1, 1, R) and `question` (B, 1, 1, T).
        """
        summary, first = self.first(question, question_mask)
        v, second = self.second(regions, region_mask, summary)
        q, third = self.third(question, question_mask, v)
        return PoolingOutput(q, v, name_maps("first", question=first) | name_maps(regions=second, question=third))
