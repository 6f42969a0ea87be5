"""Attention: one function for every scaled dot product of the library, and its multi-head modules.

Letters: B batch, H heads, T queries, S keys, d head width, D model width.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .fast_cpu import Linear, autocasts_to_bfloat16, dropout
from .packing import is_eager_cpu, pack, unpack, unpack_repeating

# cuDNN's kernel is left out on GPUs: it plans anew for each shape, and bucketed batches have hundreds of shapes.
GPU_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# From this number of keys on, torch's CPU softmax over rows is as fast as over columns.
SHORT_ROW = 32
# Share of the operations of the projections that `attend_few_keys` may need at most. At width 512 with 8 heads and 14
# keys it broke even at 0.47 for 64 questions with gradients, and at 0.38 for 128 without (one thread, in turns).
FEW_KEYS = 0.4


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over the real elements of `dim`; masked elements get exactly 0.

    Args:
        scores: any shape.
        mask: bool, True = real, broadcastable to `scores`; None means that all are real.
        dim: dimension to normalize over.

    Returns:
        Weights of the shape of `scores`. A row with no real element is all zeros, never NaN.
    """
    if mask is None:
        return scores.softmax(dim)
    # Add a mask-sized bias: masked_fill would cost a backward pass over the scores. It is finite, because a softmax
    # over only -inf is NaN, and half of the lowest number, so that no sum overflows. The mask zeroes an empty row.
    bias = torch.where(mask, scores.new_zeros(()), torch.finfo(scores.dtype).min / 2)
    return (scores + bias).softmax(dim) * mask


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scores: Tensor | None = None,
    dropout_p: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762).

    A fused kernel computes the output alone. The explicit path also returns the map; it changes the output by rounding
    only.

    Args:
        q: (B, H, T, d).
        k: (B, H, S, d).
        v: (B, H, S, d_v).
        mask: bool, True = real: (B, S) over the keys, or any four-dimensional mask that broadcasts to (B, H, T, S).
        bias: added to the scores, broadcastable to (B, H, T, S).
        scores: (B, H, T, S), used instead of the scaled dot product of `q` and `k`.
        dropout_p: probability with which an attention weight is dropped; the caller passes 0 outside training.
        need_weights: return the attention map too, as it is before dropout.

    Returns:
        Output (B, H, T, d_v), and the map (B, H, T, S) or None. A query without any real key yields zeros (the
        published implementations give uniform weights over padding there; a deliberate difference).

    Raises:
        ValueError: the mask is not bool, or has neither two nor four dimensions.
    """
    if mask is not None:
        if mask.dtype != torch.bool or mask.dim() not in (2, 4):
            raise ValueError(f"mask must be bool with 2 or 4 dimensions, got {mask.dtype} of shape {tuple(mask.shape)}")
        if mask.dim() == 2:
            mask = mask[:, None, None, :]  # (B, 1, 1, S)

    if scores is None and bias is None and not need_weights:
        # Fused path; no fused kernel returns a bias' gradient on every device. On the CPU none drops weights, and the
        # one of bfloat16 takes 1.1 to 1.9 times as long as the explicit path (64 rows of 14 to 100 queries and keys).
        on_gpu = q.device.type != "cpu"
        if on_gpu or (dropout_p == 0 and q.dtype != torch.bfloat16):
            with sdpa_kernel(GPU_KERNELS) if q.device.type == "cuda" else nullcontext():
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p), None
        # Explicit path by columns. The CPU's softmax of 64 rows of 14 keys takes 12 times as long by rows (bfloat16).
        if k.shape[2] < SHORT_ROW:
            columns = k @ (q / math.sqrt(q.shape[-1])).mT  # (B, H, S, T)
            weights = masked_softmax(columns, None if mask is None else mask.mT, dim=-2)
            return dropout(weights, dropout_p).mT @ v, None

    # Explicit path.
    if scores is None:
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, H, T, S)
    weights = masked_softmax(scores if bias is None else scores + bias, mask)
    return dropout(weights, dropout_p) @ v, weights if need_weights else None


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, D / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, H * d)."""
    return x.transpose(1, 2).flatten(-2)


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless `num_heads` divides `dim`."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide the width: got num_heads={num_heads} and width {dim}")


class MultiHeadAttention(nn.Module):
    """Multi-head attention of a sequence to a sequence that may have another width (arXiv 1706.03762).

    Args:
        query_dim: width D of the queries and of the output.
        key_dim: width of keys and values; `query_dim` when None.
        num_heads: number of heads H; must divide `query_dim`.
        dropout: dropout on the attention weights, in training only.

    Raises:
        ValueError: `num_heads` does not divide `query_dim`.
    """

    def __init__(self, query_dim: int, *, key_dim: int | None = None, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(query_dim, num_heads)
        self.query_dim, self.key_dim, self.num_heads, self.dropout = query_dim, key_dim, num_heads, dropout
        source_dim = query_dim if key_dim is None else key_dim
        self.q_proj = Linear(query_dim, query_dim)
        self.k_proj = Linear(source_dim, query_dim)
        self.v_proj = Linear(source_dim, query_dim)
        self.out_proj = Linear(query_dim, query_dim)

    def forward(
        self,
        queries: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        query_mask: Tensor | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `queries` (B, T, D) to `source` (B, S, key_dim). Both may be packed, see `packing`.

        Args:
            queries: (B, T, D), or packed by `query_mask`.
            source: (B, S, key_dim), or packed by `mask`; projected to keys and values.
            mask: bool, True = real: (B, S), or four-dimensional and broadcastable to (B, H, T, S).
            query_mask: (B, T) bool, True = real; needed for packed queries only.
            bias: added to the scores, broadcastable to (B, H, T, S).
            need_weights: return the attention map too.

        Returns:
            Output of the shape of `queries`, and the map (B, H, T, S) when asked for, else None.

        Raises:
            ValueError: see `attend`.
        """
        if bias is None and not need_weights and self.has_few_keys(queries, source, mask):
            assert mask is not None
            return self.attend_few_keys(queries, source, mask, query_mask), None
        # Queries first: the order of the projections decides in which order their gradients are summed.
        q = self.project_q(queries, query_mask)
        k, v = self.project_kv(source, mask)
        out, weights = self.attend_heads(q, k, v, mask, bias=bias, need_weights=need_weights)
        return self.out_proj(pack(out, query_mask) if queries.dim() == 2 else out), weights

    def has_few_keys(self, queries: Tensor, source: Tensor, mask: Tensor | None) -> bool:
        """Whether `attend_few_keys` applies and is faster: for bfloat16 on a CPU, with few operations.

        It reads the weights of two projections, so neither may have been replaced, for example by one with an adapter.

        `forward` multiplies each query by two matrices (D, D), `attend_few_keys` by two of (D, S * H). The latter also
        multiplies each key and value by a matrix (D, D).
        """
        if mask is None or mask.dim() != 2 or not is_eager_cpu(mask) or not autocasts_to_bfloat16():
            return False
        if type(self).scores is not MultiHeadAttention.scores or {type(self.q_proj), type(self.out_proj)} != {Linear}:
            return False
        num_queries, num_keys = (rows.numel() // rows.shape[-1] for rows in (queries, source))
        share = self.num_heads * mask.shape[1] / self.query_dim + num_keys / max(num_queries, 1)
        return num_keys > 0 and share < FEW_KEYS

    def attend_few_keys(
        self, queries: Tensor, source: Tensor, mask: Tensor, query_mask: Tensor | None = None
    ) -> Tensor:
        """The output of `forward`, to rounding, with the projections of queries and output moved to keys and values.

        In each head, the score of a query x and a key k is `(W_q x + b_q) k = x (W_q^T k) + b_q k`, and the output is
        the sum over heads and keys of `W_o v` by its weight. Gain: 1.05 of a step and 1.04 of an evaluation of
        MCAN-small (64 and 130 questions, 10 to 100 regions, one thread, in turns). In float32 it is slower.
        """
        heads = (self.num_heads, -1)
        # N keys and values of each head, from padded or packed rows: (H, N, d).
        k, v = (
            x.flatten(0, -2).unflatten(-1, heads).transpose(0, 1) for x in (self.k_proj(source), self.v_proj(source))
        )
        k = k / math.sqrt(k.shape[-1])
        keys = k @ self.q_proj.weight.unflatten(0, heads)  # (H, N, d) @ (H, d, D) -> (H, N, D)
        offsets = k @ self.q_proj.bias.unflatten(0, heads)[:, :, None]  # (H, N, 1)
        values = v @ self.out_proj.weight.unflatten(1, heads).permute(1, 2, 0)  # (H, N, D)

        # The heads of each key side by side: (B, S * H, D), and (B, S * H, 1) for the offsets.
        keys, offsets, values = (
            unpack_repeating(x.transpose(0, 1), mask).flatten(1, 2) for x in (keys, offsets, values)
        )
        scores = keys @ unpack(queries, query_mask).mT + offsets  # (B, S * H, T)
        weights = masked_softmax(scores.unflatten(1, (-1, self.num_heads)), mask[:, :, None, None], dim=1)
        weights = dropout(weights, self.dropout if self.training else 0.0).flatten(1, 2)
        out = weights.mT @ values  # (B, T, D)
        out = pack(out, query_mask) if queries.dim() == 2 else out
        return out + self.out_proj.bias.to(out.dtype)

    def project_q(self, queries: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries (B, H, T, d) of `queries` (B, T, D), or packed by `mask`."""
        return split_heads(unpack(self.q_proj(queries), mask), self.num_heads)

    def project_kv(self, source: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values, both (B, H, S, d), of `source` (B, S, key_dim), or packed by `mask`."""
        k, v = (unpack(project(source), mask) for project in (self.k_proj, self.v_proj))  # (B, S, D) each
        return split_heads(k, self.num_heads), split_heads(v, self.num_heads)

    def attend_to(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Like `forward`, from the outputs of `project_q` and `project_kv`, which can serve several calls."""
        out, weights = self.attend_heads(q, k, v, mask, bias=bias, need_weights=need_weights)
        return self.out_proj(out), weights  # (B, T, D)

    def attend_heads(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, bias: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Like `attend_to`, but before the last projection."""
        dropout_p = self.dropout if self.training else 0.0
        out, weights = attend(
            q, k, v, mask, bias=bias, scores=self.scores(q, k), dropout_p=dropout_p, need_weights=need_weights
        )
        return merge_heads(out), weights  # (B, T, D)

    def scores(self, q: Tensor, k: Tensor) -> Tensor | None:
        """Scores (B, H, T, S) of queries and keys; None for the scaled dot product, which `attend` can fuse."""
        return None


class AdditiveAttention(MultiHeadAttention):
    """Additive attention (Bahdanau et al. 2014, arXiv 1409.0473, section A.1.2): `e = w^T tanh(W_q q + W_k k)`.

    Deliberate differences: several heads, each with its own `w`; values have their own projection, and a last one
    merges the heads. Needs memory for T x S x d numbers, where dot-product attention needs T x S.

    Args:
        query_dim: width D of the queries and of the output.
        key_dim: width of keys and values; `query_dim` when None.
        num_heads: number of heads H; must divide `query_dim`.
        dropout: dropout on the attention weights, in training only.

    Raises:
        ValueError: `num_heads` does not divide `query_dim`.
    """

    def __init__(self, query_dim: int, *, key_dim: int | None = None, num_heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__(query_dim, key_dim=key_dim, num_heads=num_heads, dropout=dropout)
        head_dim = query_dim // num_heads
        self.score = nn.Parameter(nn.init.normal_(torch.empty(num_heads, head_dim), std=head_dim**-0.5))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores (B, H, T, S) of queries (B, H, T, d) and keys (B, H, S, d)."""
        hidden = torch.tanh(q[:, :, :, None] + k[:, :, None])  # (B, H, T, S, d)
        return (hidden @ self.score[:, None, :, None])[..., 0]


# By name, for decoders. "dot" is "general" of Luong et al. 2015 (arXiv 1508.04025), scaled by the root of d.
ATTENTIONS: dict[str, type[MultiHeadAttention]] = {"dot": MultiHeadAttention, "additive": AdditiveAttention}
