"""Hand-written kernels, each beside its plain twin, for steps in which torch's own operations are slow on a CPU.

A kernel computes the same as its twin: values and gradients to rounding, dropout from the same distribution. The
gains below are ratios, plain twin against kernel, on two cores of an AMD EPYC without bfloat16 instructions: of the
time of a whole training step of MCAN-small without the optimizer (16 images of 36 regions, float32; median of 7 in
turns), and of the CPU time of the kernel alone, forward and backward, in float32 and bfloat16. A kernel that gains less
than 3 % of a step is not kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 2**16  # a value is kept or dropped by 16 random bits


def plain_dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """The twin of `dropout`."""
    return F.dropout(x, p, training)


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Set values of `x` to zero with probability `p` and divide the others by `1 - p`.

    Faster than its twin because it draws 16 random bits for a value instead of 64, so that `p` is rounded to a
    65536th. Gain: 1.03 of a step (1.02 to 1.06); alone 4.4 and 4.7.
    """
    if not training or _needs_plain(x, p):
        return plain_dropout(x, p, training)
    kept, scale = draw_kept(x, p)
    return (x * kept).mul_(scale)


def plain_relu_dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """The twin of `relu_dropout`."""
    return dropout(x.relu(), p, training)


def relu_dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """`dropout(relu(x))`, written over `x`, which nothing else may read.

    Saves only its result for the backward pass, and not also `x` and the kept places. Gain: 1.04
    to 1.08 of a bfloat16 step of MCAN-small (64 images of 10 to 100 regions; median and fastest of 16 in turns).
    Without dropout it is `relu_`.
    """
    if not training:
        return x.relu_()
    if _needs_plain(x, p):
        return plain_relu_dropout(x, p, training)
    return _ReluDropout.apply(x, p)


def draw_kept(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Random ones (kept) and zeros (dropped) of the shape and type of `x`, and the factor that keeps the mean."""
    num_dropped = round(p * LEVELS)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # 4 values for each number
    # The comparison is vectorized when it is in place and in its own type; to bool it is ten times slower.
    kept = words.view(torch.int16)[: x.numel()].ge_(num_dropped - LEVELS // 2).view(x.shape)
    return kept.to(x.dtype), LEVELS / (LEVELS - num_dropped)


def _needs_plain(x: Tensor, p: float) -> bool:
    return x.device.type != "cpu" or not 0 < p < 1 - 1 / LEVELS or torch.compiler.is_compiling()


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept, ctx.scale = draw_kept(x, p)
        x.relu_().mul_(kept).mul_(ctx.scale)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # The gradient passes where the result is positive.
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], result, 0).mul_(ctx.scale), None


def plain_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The twin of `linear`."""
    return F.linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias` for `x` (..., D).

    In bfloat16 on a CPU torch fills the result with the bias and adds the product to it. Without gradients, oneDNN's
    product adds the bias itself here. Gain: 1.04 of an evaluation of MCAN-small in bfloat16 (1.03 to 1.05, seven
    batches of 128 questions in turns, one thread), with equal results.

    The operator is private to torch, whose public ones add the bias in another pass. Where it is missing the twin is
    used, and a test compares both.
    """
    if bias is None or not _fuses_bias(x):
        return plain_linear(x, weight, bias)
    x, weight, bias = (part.to(torch.bfloat16) for part in (x, weight, bias))
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """`linear` as a module."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


def autocasts_to_bfloat16() -> bool:
    """Whether matrix products on the CPU are computed in bfloat16 at present."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _fuses_bias(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and autocasts_to_bfloat16()
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # torch's own, which another version may lack
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def plain_unbiased_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The twin of `unbiased_layer_norm`."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centered = wide - wide.mean(-1, keepdim=True)
    return (weight * centered / (wide.std(-1, keepdim=True) + eps) + bias).to(x.dtype)


def unbiased_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`weight * (x - mean) / (std + eps) + bias` over the last dimension of `x` (..., D), in the type of `x`.

    Uses torch's layer norm for the statistics and a hand-written backward pass, on every device, and saves one tensor
    of the size of `x`. Computes in float32 at least. Gain: 1.05 of a step (1.03 to 1.06); alone 3.0 and 2.8.

    In bfloat16 on a CPU it is torch's norm, with `sqrt(std^2 + eps^2)` instead of `std + eps`: for a row with a `std`
    above 256 `eps` the difference is below bfloat16's rounding.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        shrink = math.sqrt((x.shape[-1] - 1) / x.shape[-1])  # torch divides by the biased deviation
        return F.layer_norm(x, x.shape[-1:], weight * shrink, bias, eps**2)
    # Cast outside: torch 2.11 loses the gradient if the cast is inside a compiled autograd.Function.
    return _UnbiasedLayerNorm.apply(x, weight, bias, eps).to(x.dtype)


class _UnbiasedLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        dim = x.shape[-1]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The tiny eps turns a constant row into zeros, with a standard deviation of about 0.
        normalized, _, inverse = torch.native_layer_norm(wide, (dim,), None, None, 1e-30)
        std = math.sqrt(dim / max(dim - 1, 1)) / inverse  # (..., 1), unbiased
        divisor = std + eps
        normalized = normalized / (inverse * divisor)
        ctx.save_for_backward(normalized.to(x.dtype), std, divisor, weight)
        return torch.addcmul(bias, normalized, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved = ctx.saved_tensors  # read once: a checkpointed layer recomputes them at each access
        normalized, std, divisor, weight = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in saved)
        dim = normalized.shape[-1]
        upstream = gradients[0].to(normalized.dtype)
        along = upstream * normalized
        # With g = upstream * weight:
        # (g - mean(g) - normalized * sum(g * normalized) * divisor / (std * (dim - 1))) / divisor
        slope = _dot(along, weight)[..., None] * divisor / (std * max(dim - 1, 1))
        gradient = torch.addcmul(_dot(upstream, weight)[..., None] / -dim, upstream, weight)
        gradient.addcmul_(normalized, slope, value=-1).div_(divisor)
        of_weight, of_bias = (values.flatten(0, -2).sum(0).to(saved[-1].dtype) for values in (along, upstream))
        return gradient.to(saved[0].dtype), of_weight, of_bias, None


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight`, (..., D) and (D,) -> (...).

    Compiled code multiplies and sums instead: a compiled backward pass runs under the autocast of its forward pass,
    which would round a matrix product.
    """
    return (x * weight).sum(-1) if torch.compiler.is_compiling() else x @ weight
