"""Small parts that several modules share: masks from lengths, dropout, norms, MLP, residual steps, attention pooling.

Letters: B batch, T places of a sequence, D model width, G glimpses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import masked_softmax
from .fast_cpu import Linear, dropout, relu_dropout, unbiased_layer_norm


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Bool mask (B, size), True for the first `lengths[b]` places of each row."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def reverse_padded(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the real part of each right-padded row of `x` (B, T, D) and leave its padding in place.

    The function is its own inverse. A gather needs no lengths on the host, which packed sequences would.
    """
    places = torch.arange(x.shape[1], device=x.device)
    # Place t of a row of length n takes the value at n - 1 - t; a padded place keeps its own.
    origins = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)  # (B, T)
    return x.gather(1, origins[:, :, None].expand_as(x))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real places of `x` (B, T, D) -> (B, D); zeros for a row without real places."""
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class Dropout(nn.Dropout):
    """`fast_cpu.dropout` as a module."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of `input`, in training only."""
        return dropout(input, self.p, self.training)


class UnbiasedLayerNorm(nn.Module):
    """Layer norm of MCAN's authors: `weight * (x - mean) / (std + eps) + bias` with the unbiased standard deviation.

    It is not interchangeable with `nn.LayerNorm`: at width 64 the two differ by about 1e-2.

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
        """Normalize the last dimension of `x` (..., dim); the result has the type of `x`."""
        return unbiased_layer_norm(x, self.weight, self.bias, self.eps)


class UnitNorm(nn.Module):
    """Scale vectors to length 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of `x` (..., dim); a vector of zeros stays zeros."""
        return F.normalize(x, dim=-1)


NORMS: dict[str, type[nn.Module]] = {
    "layer": nn.LayerNorm,
    "unbiased": UnbiasedLayerNorm,
    "unit": UnitNorm,
    "none": nn.Identity,
}


def make_norm(name: str, dim: int) -> nn.Module:
    """Norm by name: `layer`, `unbiased` (MCAN's), `unit` (to length 1) or `none`.

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
        self.hidden = Linear(input_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.output = Linear(hidden_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        return self.output(relu_dropout(self.hidden(x), self.dropout.p, self.dropout.training))


class Residual(nn.Module):
    """`norm(x + dropout(update))`, the step after every attention and feed-forward map.

    Args:
        dim: width of `x`.
        dropout: dropout on the update.
        norm: name of the norm, see `make_norm`.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0, norm: str = "layer") -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = make_norm(norm, dim)

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Add `update` to `x`, both (..., dim), and normalize."""
        return self.norm(x + self.dropout(update))


class FeedForward(nn.Module):
    """Position-wise feed-forward step with residual and norm: `norm(x + dropout(MLP(x)))`.

    Args:
        dim: width of the sequence.
        ffn_dim: width inside the MLP; `4 * dim` when None.
        dropout: dropout inside the MLP and on its output.
        norm: name of the norm, see `make_norm`.
    """

    def __init__(self, dim: int, *, ffn_dim: int | None = None, dropout: float = 0.0, norm: str = "layer") -> None:
        super().__init__()
        self.mlp = MLP(dim, hidden_dim=4 * dim if ffn_dim is None else ffn_dim, output_dim=dim, dropout=dropout)
        self.residual = Residual(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, dim) to (B, T, dim)."""
        return self.residual(x, self.mlp(x))


class GlimpsePooling(nn.Module):
    """Pool a sequence to one vector by learned attention.

    `a = softmax(MLP(X))` over the real places has one row per glimpse; the glimpses `a X` are concatenated.

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
        scores = self.score(x if scored is None else scored)  # (B, T, G)
        weights = masked_softmax(scores.transpose(1, 2), mask[:, None])  # (B, G, T)
        return (weights @ x).flatten(1), weights[:, :, None]  # (B, G * D), (B, G, 1, T)


class AttentionPooling(GlimpsePooling):
    """`GlimpsePooling` with a linear map of the glimpses (the attentional reduction of MCAN, arXiv 1906.10770).

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
        """Like `GlimpsePooling.forward`, but the vector is (B, output_dim)."""
        glimpses, weights = super().forward(x, mask, scored)
        return self.merge(glimpses), weights
