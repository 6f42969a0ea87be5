"""Parallel co-attention: both sides attend at the same time, from the same old inputs, through one affinity."""

from __future__ import annotations

from torch import Tensor, nn

from ..attention import attend, check_heads, masked_softmax, merge_heads, split_heads
from ..dropout import Dropout
from ..maps import name_maps
from .base import CoAttentionPooling, LayerOutput, PoolingOutput, ResidualCoAttention


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
        maps = name_maps(question_to_regions=question_map, regions_to_question=region_map)
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
        mask_affinity: leave padding out of C. The authors' code does not, so that at the phrase level, whose vectors
            are not zero there, the regions hear of padding.
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
        q, v = self.question_features(question), self.region_features(regions)
        question_scores = self.question_score(self.drop((q + affinity @ v).tanh())).mT  # (B, 1, T)
        region_scores = self.region_score(self.drop((v + affinity.mT @ q).tanh())).mT
        question_map = masked_softmax(question_scores, question_mask[:, None])
        region_map = masked_softmax(region_scores, region_mask[:, None])
        return PoolingOutput(
            (question_map @ question)[:, 0],
            (region_map @ regions)[:, 0],
            name_maps(question=question_map[:, None], regions=region_map[:, None]),
        )
