"""What every co-attention layer takes and gives: two sequences in, two sequences and the maps between them out.

Letters: B batch, T question tokens, R regions, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

Maps = dict[str, Tensor]


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


def named_maps(**maps: Tensor | None) -> Maps:
    """The maps that were computed, by name."""
    return {name: weights for name, weights in maps.items() if weights is not None}
