"""Parallel co-attention: both sides attend at the same time, from the same old inputs, through one affinity.

Letters: B batch, T question tokens, R regions, H heads, d head width.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..attention import attend, check_heads, masked_softmax, merge_heads, split_heads
from ..layers import Dropout
from ..maps import name_maps
from .base import AttentionLayer, CoAttentionPooling, LayerOutput, PoolingOutput


class ParallelCoAttention(AttentionLayer):
    """Parallel co-attention as a layer over sequences (after Lu et al. 2016, arXiv 1606.00061, eq. 3-5).

    With words Q (T) and regions V (R), per head::

        C   = (Q W_q)(V W_v)^T / sqrt(d)            one affinity (T, R)
        Q'  = norm(Q + softmax_R(C)   (V U_v) O_q)  each word attends to the regions
        V'  = norm(V + softmax_T(C)^T (Q U_q) O_v)  each region attends to the words

    then a feed-forward step on each side. Differences from the paper, which pools each side to one vector: every word
    and every region has its own map and vector; the affinity has no tanh, since scores in [-1, 1] could never put more
    than a few percent on one of 100 regions; several heads; residual and norm.

    Constructor arguments: see `AttentionLayer`.
    """

    def build(self, question_dim: int, region_dim: int) -> None:
        """Create the parts of the layer."""
        check_heads(question_dim, self.num_heads)
        check_heads(region_dim, self.num_heads)
        affinity_dim = min(question_dim, region_dim)
        self.question_affinity = nn.Linear(question_dim, affinity_dim)
        self.region_affinity = nn.Linear(region_dim, affinity_dim)
        self.question_value = nn.Linear(question_dim, region_dim)
        self.region_value = nn.Linear(region_dim, question_dim)
        self.question_merge = nn.Linear(question_dim, question_dim)
        self.region_merge = nn.Linear(region_dim, region_dim)
        self.question_residual = self.make_residual(question_dim)
        self.region_residual = self.make_residual(region_dim)
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

        Maps: `question_to_regions` (B, H, T, R), `regions_to_question` (B, H, R, T).
        """
        dropout_p = self.dropout if self.training else 0.0
        # Both sides are projected from the same old inputs.
        q = split_heads(self.question_affinity(question), self.num_heads)  # (B, H, T, d)
        v = split_heads(self.region_affinity(regions), self.num_heads)  # (B, H, R, d)
        region_values = split_heads(self.region_value(regions), self.num_heads)  # (B, H, R, question_dim / H)
        question_values = split_heads(self.question_value(question), self.num_heads)  # (B, H, T, region_dim / H)
        # The same affinity q v^T is softmaxed along its rows and along its columns.
        from_regions, to_regions = attend(
            q, v, region_values, region_mask, dropout_p=dropout_p, need_weights=need_weights
        )
        from_question, to_question = attend(
            v, q, question_values, question_mask, dropout_p=dropout_p, need_weights=need_weights
        )
        # Each side adds what it attended to.
        question = self.question_residual(question, self.question_merge(merge_heads(from_regions)))
        regions = self.region_residual(regions, self.region_merge(merge_heads(from_question)))
        maps = name_maps(question_to_regions=to_regions, regions_to_question=to_question)
        return LayerOutput(self.question_ffn(question), self.region_ffn(regions), maps)


class ParallelPooling(CoAttentionPooling):
    """Parallel co-attention as the paper's pooling (Lu et al. 2016, arXiv 1606.00061, eq. 3-5).

    With words Q (T) and regions V (R) as rows::

        C   = tanh(Q (V W_b)^T)                                     affinity (T, R)
        H_q = tanh(Q W_q + C (V W_v)),  H_v = tanh(V W_v + C^T (Q W_q))
        q   = softmax(H_q w_q)^T Q,     v   = softmax(H_v w_v)^T V

    Difference from the paper, as in the authors' code: every projection has a bias.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: width of H_q and H_v.
        mask_affinity: leave padding out of C. The authors' code does not. At the phrase level the vectors at padding
            are not zero, so that padding then changes the regions' scores.
        dropout: dropout on H_q and H_v.
    """

    def __init__(
        self, question_dim: int, region_dim: int, *, hidden_dim: int, mask_affinity: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.hidden_dim = question_dim, region_dim, hidden_dim
        self.mask_affinity, self.dropout = mask_affinity, dropout
        self.region_affinity = nn.Linear(region_dim, question_dim)
        self.question_features = nn.Linear(question_dim, hidden_dim)
        self.region_features = nn.Linear(region_dim, hidden_dim)
        self.question_score = nn.Linear(hidden_dim, 1)
        self.region_score = nn.Linear(hidden_dim, 1)
        self.drop = Dropout(dropout)

    def forward(self, question: Tensor, regions: Tensor, question_mask: Tensor, region_mask: Tensor) -> PoolingOutput:
        """See `CoAttentionPooling.forward`. Maps: `question` (B, 1, 1, T) and `regions` (B, 1, 1, R)."""
        affinity = (question @ self.region_affinity(regions).mT).tanh()  # (B, T, R)
        if self.mask_affinity:
            affinity = affinity * (question_mask[:, :, None] & region_mask[:, None])
        # Scores of each side, with the other side's features added through the affinity.
        q, v = self.question_features(question), self.region_features(regions)  # (B, T, hidden), (B, R, hidden)
        question_scores = self.question_score(self.drop((q + affinity @ v).tanh())).mT  # (B, 1, T)
        region_scores = self.region_score(self.drop((v + affinity.mT @ q).tanh())).mT  # (B, 1, R)
        # Each side is pooled to one vector.
        question_map = masked_softmax(question_scores, question_mask[:, None])
        region_map = masked_softmax(region_scores, region_mask[:, None])
        return PoolingOutput(
            (question_map @ question)[:, 0],
            (region_map @ regions)[:, 0],
            name_maps(question=question_map[:, None], regions=region_map[:, None]),
        )
