"""The signature of co-attention layers: two sequences in, two sequences and the maps between them out.

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
    """The output of a co-attention layer.

    Attributes:
        question: (B, T, question_dim).
        regions: (B, R, region_dim).
        maps: name -> attention map (B, H, to, from), empty unless asked for.
    """

    question: Tensor
    regions: Tensor
    maps: Maps


class CoAttentionLayer(nn.Module, ABC):
    """Base of the co-attention layers: any layer may follow any other of the same two widths.

    Attributes:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        shares_images: whether `forward` also takes `images` (B,), the image of each question. `regions` and
            `region_mask` then hold each of I images once, (I, R, ...), and the layer returns (B, R, region_dim), or the
            same tensor `regions` if it lets them pass through.
    """

    question_dim: int
    region_dim: int
    shares_images = False

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
            The two new sequences and the maps, named `<rows>_to_<columns>`. Values at padded places are undefined;
            every reader masks them.
        """


class AttentionLayer(CoAttentionLayer):
    """Base of the layers of multi-head attention and feed-forward steps: their sizes, and the parts of those sizes.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_heads: attention heads; must divide each width in which the layer attends.
        ffn_dim: inner width of the feed-forward steps; four times the width of the side when None.
        dropout: dropout on the attention weights, on updates, and inside the feed-forward steps.
        norm: name of the norm after each step, see `layers.make_norm`.

    Raises:
        ValueError: `num_heads` does not divide a width, or the norm is unknown.
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
        self.build(question_dim, region_dim)

    @abstractmethod
    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""

    def make_attention(self, query_dim: int, key_dim: int) -> MultiHeadAttention:
        """Attention from a sequence of width `query_dim` to one of width `key_dim`."""
        return MultiHeadAttention(query_dim, key_dim=key_dim, num_heads=self.num_heads, dropout=self.dropout)

    def make_residual(self, dim: int) -> Residual:
        """The residual and norm after an attention step, of width `dim`."""
        return Residual(dim, dropout=self.dropout, norm=self.norm)

    def make_ffn(self, dim: int) -> FeedForward:
        """A feed-forward step of width `dim`, with residual and norm."""
        return FeedForward(dim, ffn_dim=self.ffn_dim, dropout=self.dropout, norm=self.norm)


class PoolingOutput(NamedTuple):
    """The output of a co-attention pooling.

    Attributes:
        question: (B, question_dim), the question as one vector.
        regions: (B, region_dim), the image as one vector.
        maps: name -> pooling map (B, 1, 1, from); `question` and `regions` are those of the two vectors.
    """

    question: Tensor
    regions: Tensor
    maps: Maps


class CoAttentionPooling(nn.Module, ABC):
    """Base of the co-attention poolings: each side to one vector, guided by the other side."""

    @abstractmethod
    def forward(self, question: Tensor, regions: Tensor, question_mask: Tensor, region_mask: Tensor) -> PoolingOutput:
        """Pool `question` (B, T, question_dim) and `regions` (B, R, region_dim), masks as for a layer."""
