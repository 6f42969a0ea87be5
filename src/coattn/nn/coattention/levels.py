"""Co-attention at each level of a question's hierarchy.

Letters: B batch, T question tokens, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..maps import POOLING, Maps, prefix_maps
from ..question import Question
from .base import CoAttentionPooling
from .stack import CoAttentionOutput

LEVELS = ("word", "phrase", "question")


class HierarchicalCoAttention(nn.Module):
    """One co-attention pooling per level of the question, each with its own weights, over the same regions.

    See Lu et al. 2016, arXiv 1606.00061, section 3.3.

    Args:
        poolings: for the word, the phrase and the question level.

    Raises:
        ValueError: not three poolings.
    """

    def __init__(self, poolings: Sequence[CoAttentionPooling]) -> None:
        super().__init__()
        if len(poolings) != len(LEVELS):
            raise ValueError(f"one pooling for each of {', '.join(LEVELS)}, got {len(poolings)}")
        self.poolings = nn.ModuleList(poolings)

    def forward(
        self,
        question: Question,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Pool each of `question.levels`, (B, T, question_dim), with `regions` (B, R, region_dim).

        Returns a pair of vectors per level and the unchanged sequences. Maps are named `<level>.pooling.<name>`.

        Raises:
            ValueError: the question encoder returns another number of levels.
        """
        if len(question.levels) != len(LEVELS):
            raise ValueError(f"this co-attention reads the levels {', '.join(LEVELS)}, got {len(question.levels)}")
        pooled, maps = [], Maps()
        for name, pooling, level in zip(LEVELS, self.poolings, question.levels, strict=True):
            q, v, level_maps = pooling(level, regions, question_mask, region_mask)
            pooled.append((q, v))
            if need_weights:
                maps |= prefix_maps(f"{name}.{POOLING}", level_maps)
        return CoAttentionOutput(question.tokens, regions, tuple(pooled), maps)
