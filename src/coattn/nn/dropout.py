"""Dropout, which on the CPU costs more than the matrix products around it unless its random numbers are cheap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 2**16  # a place is kept or not by 16 random bits


def _kept(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Ones where `x` is kept and zeros where not, and what keeps the mean: one over the probability of being kept.

    `p` is rounded to a 65536th. Of the generator's 64 bits 16 decide about a place: 4 places for each number drawn.
    """
    num_dropped = round(p * _LEVELS)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    # In place and in its own type the comparison is vectorised; to bool it is ten times slower.
    kept = words.view(torch.int16)[: x.numel()].ge_(num_dropped - _LEVELS // 2).view(x.shape)
    return kept.to(x.dtype), _LEVELS / (_LEVELS - num_dropped)


def _is_plain(x: Tensor, p: float) -> bool:
    """Whether torch's own dropout is as good: on other devices, and compiled."""
    return x.device.type != "cpu" or not 0 < p < 1 - 1 / _LEVELS or torch.compiler.is_compiling()


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """As `torch.nn.functional.dropout`, from the same generator, but several times faster on the CPU."""
    if not training or _is_plain(x, p):
        return F.dropout(x, p, training)
    kept, scale = _kept(x, p)
    return x * kept * scale


class _ReluDropout(torch.autograd.Function):
    """Remembers its result alone, which tells where the gradient passes: no mask, and no input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept, ctx.scale = _kept(x, p)
        result = kept.mul_(x.relu()).mul_(ctx.scale)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], result, 0) * ctx.scale, None


def relu_dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """`dropout(relu(x))`."""
    if not training or _is_plain(x, p):
        return F.dropout(x.relu(), p, training)
    return _ReluDropout.apply(x, p)


class Dropout(nn.Dropout):
    """`dropout` as a module."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of `input`, in training only."""
        return dropout(input, self.p, self.training)
