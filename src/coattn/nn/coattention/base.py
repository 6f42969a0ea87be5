"""The signature of co-attention layers: two sequences in, two sequences and the maps between them out.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

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
        reads_regions: False for a layer that passes the regions through.
    """

    question_dim: int
    region_dim: int
    reads_regions: bool = True

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

    def attend_regions(self, regions: Tensor, region_mask: Tensor) -> Tensor:
        """The first steps of the layer, as far as they read the regions alone: once for all questions about an image.

        A layer without such steps returns `regions` (B, R, region_dim).
        """
        return regions

    def attend_question(
        self,
        question: Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> LayerOutput:
        """The rest of `forward`, from the regions that `attend_regions` returned."""
        return self(question, regions, question_mask, region_mask, need_weights=need_weights)


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
