"""Parallel co-attention: both sides attend at the same time, from the same old inputs, through one affinity."""

from __future__ import annotations

from torch import Tensor, nn

from ..attention import attend, check_heads, merge_heads, split_heads
from .base import LayerOutput, ResidualCoAttention, named_maps


class ParallelCoAttention(ResidualCoAttention):
    """Parallel co-attention as a layer over sequences (after Lu et al. 2016, arXiv 1606.00061, eq. 3-5).

    With words Q (T) and regions V (R), per head::

        C   = (Q W_q)(V W_v)^T / sqrt(d)            one affinity (T, R)
        Q'  = norm(Q + softmax_R(C)   (V U_v) O_q)  each word's own view of the image
        V'  = norm(V + softmax_T(C)^T (Q U_q) O_v)  each region's own view of the question

    then a feed-forward step on each side. Differences from the paper, which pools each side to one vector: every
    word and every region gets a map and a vector of its own; the affinity has no tanh, since scores in [-1, 1] could
    never put more than a few percent on one of 100 regions; several heads; residual and norm.
    """

    def _build(self) -> None:
        question_dim, region_dim = self.question_dim, self.region_dim
        check_heads(question_dim, self.num_heads)
        check_heads(region_dim, self.num_heads)
        affinity_dim = min(question_dim, region_dim)
        self.question_affinity = nn.Linear(question_dim, affinity_dim)
        self.region_affinity = nn.Linear(region_dim, affinity_dim)
        self.question_value = nn.Linear(question_dim, region_dim)
        self.region_value = nn.Linear(region_dim, question_dim)
        self.question_merge = nn.Linear(question_dim, question_dim)
        self.region_merge = nn.Linear(region_dim, region_dim)
        self.question_residual = self._residual(question_dim)
        self.region_residual = self._residual(region_dim)
        self.question_ffn = self._feed_forward(question_dim)
        self.region_ffn = self._feed_forward(region_dim)

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

        Maps: `question_to_regions` (B, H, T, R), `regions_to_question` (B, H, R, T).
        """
        dropout_p = self.dropout if self.training else 0.0
        q = split_heads(self.question_affinity(question), self.num_heads)  # (B, H, T, d)
        v = split_heads(self.region_affinity(regions), self.num_heads)  # (B, H, R, d)
        image_values = split_heads(self.region_value(regions), self.num_heads)
        question_values = split_heads(self.question_value(question), self.num_heads)
        # The same affinity q v^T read along its rows and along its columns.
        seen, question_map = attend(q, v, image_values, region_mask, dropout_p=dropout_p, need_weights=need_weights)
        heard, region_map = attend(v, q, question_values, question_mask, dropout_p=dropout_p, need_weights=need_weights)
        question = self.question_residual(question, self.question_merge(merge_heads(seen)))
        regions = self.region_residual(regions, self.region_merge(merge_heads(heard)))
        maps = named_maps(question_to_regions=question_map, regions_to_question=region_map)
        return LayerOutput(self.question_ffn(question), self.region_ffn(regions), maps)
