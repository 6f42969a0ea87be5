"""Small parts that several bricks share: masks from lengths, MLP, normalisations, residual steps, attention pooling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .attention import masked_softmax
from .dropout import Dropout, relu_dropout


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Bool mask (B, size), True for the first `lengths[b]` places of each row."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def reverse_padded(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the real part of each right-padded row of `x` (B, T, D); what stands in the padding stays there.

    Its own inverse. A gather, so no length has to travel to the host as it would for packed sequences.
    """
    places = torch.arange(x.shape[1], device=x.device)
    sources = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)  # (B, T)
    return x.gather(1, sources[:, :, None].expand_as(x))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real places of `x` (B, T, D) -> (B, D); zeros where a row has none."""
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class _UnbiasedNorm(torch.autograd.Function):
    """`weight * (x - mean) / (std + eps) + bias` in few passes over memory, in float32 at least; remembers little.

    The result is float32 at least. Whoever wants another type converts it: torch 2.11 compiles a function whose result
    is converted within to one without gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        dim = x.shape[-1]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # So small an eps only makes a constant row zeros, and its standard deviation next to 0.
        whitened, _, inverse = torch.native_layer_norm(wide, (dim,), None, None, 1e-30)
        std = math.sqrt(dim / max(dim - 1, 1)) / inverse
        divisor = std + eps
        whitened = whitened / (inverse * divisor)
        ctx.save_for_backward(whitened.to(x.dtype), std, divisor, weight)
        return torch.addcmul(bias, whitened, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved = ctx.saved_tensors  # to be asked for once: a checkpointed layer computes them for that
        whitened, std, divisor, weight = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in saved)
        dim = whitened.shape[-1]
        given = gradients[0].to(whitened.dtype)
        along = given * whitened
        # With g = given * weight: (g - mean(g) - whitened * sum(g * whitened) * divisor / (std * (dim - 1))) / divisor
        steepness = _dot(along, weight)[..., None] * divisor / (std * max(dim - 1, 1))
        gradient = torch.addcmul(_dot(given, weight)[..., None] / -dim, given, weight)
        gradient.addcmul_(whitened, steepness, value=-1).div_(divisor)
        of_weight, of_bias = (values.flatten(0, -2).sum(0).to(saved[-1].dtype) for values in (along, given))
        return gradient.to(saved[0].dtype), of_weight, of_bias, None


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight`, (..., D) and (D,) -> (...).

    No matrix product where it is compiled: a compiled backward pass runs under the autocast of its forward pass, which
    would round it.
    """
    return (x * weight).sum(-1) if torch.compiler.is_compiling() else x @ weight


class UnbiasedLayerNorm(nn.Module):
    """Layer normalisation as MCAN's authors wrote it: `(x - mean) / (std + eps)` with the unbiased standard deviation.

    Not interchangeable with `nn.LayerNorm`: at width 64 the two differ by some 1e-2.

    Args:
        dim: width of the last dimension.
        eps: added to the standard deviation, not to the variance.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x` (..., dim).

        The result has the type of `x`: in mixed precision sequences stay in bfloat16 from one matrix product to the
        next.
        """
        return _UnbiasedNorm.apply(x, self.weight, self.bias, self.eps).to(x.dtype)


class UnitNorm(nn.Module):
    """Vectors to length 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x` (..., dim); a vector of zeros stays."""
        return F.normalize(x, dim=-1)


NORMS: dict[str, type[nn.Module]] = {
    "layer": nn.LayerNorm,
    "unbiased": UnbiasedLayerNorm,
    "unit": UnitNorm,
    "none": nn.Identity,
}


def make_norm(name: str, dim: int) -> nn.Module:
    """Normalisation by name: `layer`, `unbiased` (MCAN's own), `unit` (to length 1) or `none`.

    Raises:
        ValueError: unknown name.
    """
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name](dim)


class MLP(nn.Module):
    """Linear, ReLU, dropout, linear.

    Args:
        input_dim: width of the input.
        hidden_dim: width between the two linear maps.
        output_dim: width of the output.
        dropout: dropout after the ReLU.
    """

    def __init__(self, input_dim: int, *, hidden_dim: int, output_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        return self.output(relu_dropout(self.hidden(x), self.dropout.p, self.training))


class Residual(nn.Module):
    """`norm(x + dropout(update))`, the step that follows every attention and feed-forward map.

    Args:
        dim: width of `x`.
        dropout: dropout on the update.
        norm: name of the normalisation, see `make_norm`.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0, norm: str = "layer") -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = make_norm(norm, dim)

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Add `update` to `x`, both (..., dim), and normalise."""
        return self.norm(x + self.dropout(update))


class FeedForward(nn.Module):
    """Position-wise feed-forward step with residual and norm: `norm(x + dropout(MLP(x)))`.

    Args:
        dim: width of the sequence.
        ffn_dim: width inside the MLP; `4 * dim` when None.
        dropout: dropout inside the MLP and on its output.
        norm: name of the normalisation, see `make_norm`.
    """

    def __init__(self, dim: int, *, ffn_dim: int | None = None, dropout: float = 0.0, norm: str = "layer") -> None:
        super().__init__()
        self.mlp = MLP(dim, hidden_dim=4 * dim if ffn_dim is None else ffn_dim, output_dim=dim, dropout=dropout)
        self.residual = Residual(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, dim) to (B, T, dim)."""
        return self.residual(x, self.mlp(x))


class GlimpsePooling(nn.Module):
    """A sequence to one vector by learned attention: `a = softmax(MLP(X))` over the real places, a row per glimpse.

    The glimpses `a X` are concatenated.

    Args:
        dim: width of the sequence.
        hidden_dim: width inside the MLP.
        num_glimpses: number of attention maps G.
        dropout: dropout inside the MLP.
    """

    def __init__(self, dim: int, *, hidden_dim: int, num_glimpses: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.score = MLP(dim, hidden_dim=hidden_dim, output_dim=num_glimpses, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor, scored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool `x` (B, T, D) over `mask` (B, T) -> glimpses (B, G * D), map (B, G, 1, T).

        The scores are those of `scored` (B, T, dim), or of `x` itself when None.
        """
        scores = self.score(x if scored is None else scored)
        weights = masked_softmax(scores.transpose(1, 2), mask[:, None])  # (B, G, T)
        return (weights @ x).flatten(1), weights[:, :, None]


class AttentionPooling(GlimpsePooling):
    """`GlimpsePooling`, projected (MCAN's attentional reduction, arXiv 1906.10770, eq. 9-10).

    Args:
        dim: width of the sequence.
        hidden_dim: width inside the MLP.
        output_dim: width of the pooled vector.
        num_glimpses: number of attention maps G.
        dropout: dropout inside the MLP.
    """

    def __init__(
        self, dim: int, *, hidden_dim: int, output_dim: int, num_glimpses: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__(dim, hidden_dim=hidden_dim, num_glimpses=num_glimpses, dropout=dropout)
        self.merge = nn.Linear(dim * num_glimpses, output_dim)

    def forward(self, x: Tensor, mask: Tensor, scored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `GlimpsePooling.forward`, but the vector is (B, output_dim)."""
        glimpses, weights = super().forward(x, mask, scored)
        return self.merge(glimpses), weights
