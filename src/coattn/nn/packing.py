"""Packed sequences: the real rows of a padded batch, one after another, so that nothing is computed for padding.

Linear maps, norms, dropout and feed-forward steps treat each row alone, so they take packed rows as they take padded
ones. Only attention has to know which rows belong together.

Letters: B batch, T places of a sequence, N real rows of the batch, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_eager_cpu(x: Tensor) -> bool:
    """Whether the operations on `x` run on a CPU, one by one; False while a model is traced or compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def pack(x: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of `x` (B, T, D) that are real by `mask` (B, T), as (N, D).

    `x` is returned unchanged on a GPU, which would have to wait for N, and in a traced or compiled model, whose shapes
    cannot depend on values. So are packed rows (N, D).
    """
    if x.dim() == 2 or mask is None or not is_eager_cpu(mask):
        return x
    if bool(mask.all()):
        return x.flatten(0, 1)
    rows = mask.flatten().nonzero()[:, 0]
    return _Pack.apply(x, rows) if torch.is_grad_enabled() else _select(x, rows)


def unpack(x: Tensor, mask: Tensor | None) -> Tensor:
    """The inverse of `pack`: rows (N, D) as (B, T, D), with zeros at padding. `x` (B, T, D) is returned unchanged."""
    if x.dim() == 3:
        return x
    assert mask is not None, "packed rows need their mask"
    if len(x) == mask.numel():
        return x.unflatten(0, mask.shape)
    rows = mask.flatten().nonzero()[:, 0]
    return _Unpack.apply(x, rows, mask.shape) if torch.is_grad_enabled() else _spread(x, rows, mask.shape)


def unpack_repeating(x: Tensor, mask: Tensor) -> Tensor:
    """Rows (N, ...) as (B, T, ...), with real rows repeated at padding: faster than `unpack` for wide rows; N > 0."""
    if len(x) == mask.numel():
        return x.unflatten(0, mask.shape)
    rows = (mask.flatten().cumsum(0) - 1).clamp(min=0)  # a padded place takes the last real row before it
    return x.index_select(0, rows).unflatten(0, mask.shape)


def _select(x: Tensor, rows: Tensor) -> Tensor:
    """(B, T, D) -> (N, D)."""
    return x.flatten(0, 1).index_select(0, rows)


def _spread(x: Tensor, rows: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, D) -> (B, T, D)."""
    return x.new_zeros(math.prod(shape), x.shape[1]).index_copy_(0, rows, x).view(*shape, -1)


class _Pack(torch.autograd.Function):
    """Torch's own gradient of an index adds rows up, one by one; here no row occurs twice."""

    @staticmethod
    def forward(x: Tensor, rows: Tensor) -> Tensor:
        return _select(x, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.rows = inputs
        ctx.shape = x.shape[:2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _spread(gradients[0], ctx.rows, ctx.shape), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, rows: Tensor, shape: Sequence[int]) -> Tensor:
        return _spread(x, rows, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rows = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _select(gradients[0], ctx.rows), None, None
