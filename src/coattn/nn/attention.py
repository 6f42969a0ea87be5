"""The one attention function of the library, and its multi-head module.

Letters: B batch, H heads, T queries, S keys, d head width, D model width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .dropout import dropout

# On a GPU not cuDNN's, which makes a plan for each shape: bucketed batches have hundreds.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over the real elements of `dim`; masked elements get exactly 0.

    Args:
        scores: any shape.
        mask: bool, True = real, broadcastable to `scores`; None means that all are real.
        dim: dimension to normalise over.

    Returns:
        Weights of the shape of `scores`. A row with no real element is all zeros, never NaN.
    """
    if mask is None:
        return scores.softmax(dim)
    # A small summand and a small factor: their gradients cost next to nothing, those of filling a pass each.
    # In a row without a real element all are let through, and cleared afterwards: -inf throughout would make it NaN.
    has_any = mask.any(dim, keepdim=True)
    left_out = torch.zeros(mask.shape, dtype=scores.dtype, device=mask.device).masked_fill_(has_any & ~mask, -math.inf)
    return (scores + left_out).softmax(dim) * has_any


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    Fused when only the output is wanted, an explicit twin when the map is wanted too: asking for the map changes the
    output by rounding only.

    Args:
        q: (B, H, T, d).
        k: (B, H, S, d).
        v: (B, H, S, d_v).
        mask: bool, True = real: (B, S) over the keys, or any four-dimensional mask that broadcasts to (B, H, T, S).
        bias: added to the scaled scores, broadcastable to (B, H, T, S).
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
            mask = mask[:, None, None, :]
    # With a learned bias explicit: no fused kernel gives its gradient on every device. On the CPU none drops weights.
    if not need_weights and bias is None and (dropout_p == 0 or q.device.type != "cpu"):
        return _fused(q, k, v, mask, dropout_p), None
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, H, T, S)
    weights = masked_softmax(scores if bias is None else scores + bias, mask)
    return dropout(weights, dropout_p) @ v, weights if need_weights else None


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, D / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, H * d)."""
    return x.transpose(1, 2).flatten(-2)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    if q.device.type != "cuda":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    with sdpa_kernel(_KERNELS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


def project(x: Tensor, *maps: nn.Linear) -> tuple[Tensor, ...]:
    """Several linear maps of `x`, all of one width: in training in mixed precision as one product, a tenth faster.

    In float32 a CPU gains nothing, and for a single question it takes longer to copy the weights together.
    """
    if not torch.is_grad_enabled() or x.dtype == maps[0].weight.dtype:
        return tuple(linear(x) for linear in maps)
    weight, bias = torch.cat([linear.weight for linear in maps]), torch.cat([linear.bias for linear in maps])
    return F.linear(x, weight, bias).chunk(len(maps), dim=-1)


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless `num_heads` divides `dim`."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide the width: got num_heads={num_heads} and width {dim}")


class MultiHeadAttention(nn.Module):
    """Multi-head attention of a sequence to a sequence that may have another width (arXiv 1706.03762, section 3.2.2).

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
        self.query = nn.Linear(query_dim, query_dim)
        self.key = nn.Linear(source_dim, query_dim)
        self.value = nn.Linear(source_dim, query_dim)
        self.merge = nn.Linear(query_dim, query_dim)

    def forward(
        self,
        queries: Tensor,
        source: Tensor,
        source_mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `queries` (B, T, D) to `source` (B, S, key_dim) where `source_mask` (B, S) is True.

        A `bias` (B, H, T, S) is added to the scaled scores.

        Returns:
            Output (B, T, D), and the map (B, H, T, S) when asked for, else None.
        """
        if queries is source:
            q, k, v = project(source, self.query, self.key, self.value)
        else:
            q, (k, v) = self.query(queries), project(source, self.key, self.value)
        k, v = split_heads(k, self.num_heads), split_heads(v, self.num_heads)
        return self._read(q, k, v, source_mask, bias, need_weights=need_weights)

    def remember(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, d) of `source` (B, S, key_dim), which may be read more than once."""
        k, v = project(source, self.key, self.value)
        return split_heads(k, self.num_heads), split_heads(v, self.num_heads)

    def read(
        self,
        queries: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `forward`, from what `remember` gave; `mask` and `bias` as `attend` takes them."""
        return self._read(self.query(queries), k, v, mask, bias, need_weights=need_weights)

    def _read(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (B, T, D), keys and values (B, H, S, d)."""
        q, dropout_p = split_heads(q, self.num_heads), self.dropout if self.training else 0.0
        out, weights = self._attend(q, k, v, mask, bias, dropout_p=dropout_p, need_weights=need_weights)
        return self.merge(merge_heads(out)), weights

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        *,
        dropout_p: float,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        return attend(q, k, v, mask, bias=bias, dropout_p=dropout_p, need_weights=need_weights)


class AdditiveAttention(MultiHeadAttention):
    """Additive attention (Bahdanau et al. 2014, arXiv 1409.0473, section A.1.2): `e = w^T tanh(W_q q + W_k k)`.

    Deliberate differences: several heads, each with a `w` of its own; values have a projection of their own, and a last
    one merges the heads. Needs memory for T x S x d numbers, where dot-product attention needs T x S.

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

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        *,
        dropout_p: float,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        energies = torch.tanh(q[:, :, :, None] + k[:, :, None])  # (B, H, T, S, d)
        scores = (energies @ self.score[:, None, :, None])[..., 0]  # (B, H, T, S)
        if bias is not None:
            scores = scores + bias
        weights = masked_softmax(scores, None if mask is None else mask[:, None, None])
        return dropout(weights, dropout_p) @ v, weights if need_weights else None


# By the score of a query and a key. "dot" is Luong et al. 2015 (arXiv 1508.04025), "general", scaled by the root of d.
ATTENTIONS: dict[str, type[MultiHeadAttention]] = {"dot": MultiHeadAttention, "additive": AdditiveAttention}
