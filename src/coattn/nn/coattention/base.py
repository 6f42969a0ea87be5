"""What every co-attention layer takes and gives: two sequences in, two sequences and the maps between them out.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from ..maps import Maps


class LayerOutput(NamedTuple):
    """What a co-attention layer returns.

    Attributes:
        question: (B, T, question_dim).
        regions: (B, R, region_dim).
        maps: name -> attention map (B, H, to, from), empty unless asked for.
    """

    question: Tensor
    regions: Tensor
    maps: Maps


class CoAttentionLayer(nn.Module, ABC):
    """The signature that makes layers stackable: any layer may follow any other of the same two widths."""

    question_dim: int
    region_dim: int

    @abstractmethod
    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """Let the two sides attend.

        Args:
            question: (B, T, question_dim).
            regions: (B, R, region_dim).
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
            need_weights: fill `maps`; changes the sequences by rounding only.

        Returns:
            The two new sequences and the maps, named `<who>_to_<whom>`. What stands at padded places is not defined;
            every reader masks it.
        """


class PoolingOutput(NamedTuple):
    """What a co-attention pooling returns.

    Attributes:
        question: (B, question_dim), the question as one vector.
        regions: (B, region_dim), the image as one vector.
        maps: name -> pooling map (B, 1, 1, from); `question` and `regions` are those of the two vectors.
    """

    question: Tensor
    regions: Tensor
    maps: Maps


class CoAttentionPooling(nn.Module, ABC):
    """The two sides to one vector each, guided by each other: co-attention as a paper's pooling, not as a layer."""

    @abstractmethod
    def forward(self, question: Tensor, regions: Tensor, question_mask: Tensor, region_mask: Tensor) -> PoolingOutput:
        """Pool `question` (B, T, question_dim) and `regions` (B, R, region_dim), masks as for a layer."""


class ResidualCoAttention(CoAttentionLayer):
    """What the parallel, alternating and modular layers share: their sizes, and steps with residual and norm.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide the widths of the sides that attend.
        ffn_dim: inner width of feed-forward steps; four times the side's width when None.
        dropout: dropout on maps, updates and inside feed-forward steps.
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
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Make the layer's own parts, of the sizes that are set."""

    def _attention(self, query_dim: int, key_dim: int) -> MultiHeadAttention:
        return MultiHeadAttention(query_dim, key_dim=key_dim, num_heads=self.num_heads, dropout=self.dropout)

    def _residual(self, dim: int) -> Residual:
        return Residual(dim, dropout=self.dropout, norm=self.norm)

    def _feed_forward(self, dim: int) -> FeedForward:
        return FeedForward(dim, ffn_dim=self.ffn_dim, dropout=self.dropout, norm=self.norm)
