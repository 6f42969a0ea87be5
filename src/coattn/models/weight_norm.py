"""Weight-normalized linear maps (Salimans & Kingma 2016, arXiv 1602.07868), used by the classic baselines."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from coattn.nn.layers import Dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "elu": F.elu}


class WeightNormLinear(nn.Module):
    """`activation(g V / ||V|| dropout(x) + b)` with *one* norm and one gain for the whole matrix.

    The published baselines use weight normalization in this form (`dim=None` in torch). The paper has one gain for each
    row.

    Args:
        input_dim: width of the input.
        output_dim: width of the output.
        activation: "none", "relu" or "elu".
        dropout: dropout on the input.

    Raises:
        ValueError: unknown activation.
    """

    def __init__(self, input_dim: int, output_dim: int, *, activation: str = "none", dropout: float = 0.0) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.drop = Dropout(dropout)
        linear = nn.Linear(input_dim, output_dim)
        self.weight_v = nn.Parameter(linear.weight.detach())
        self.weight_g = nn.Parameter(self.weight_v.detach().norm())
        self.bias = nn.Parameter(linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm())
        return ACTIVATIONS[self.activation](F.linear(self.drop(x), weight, self.bias))


class WeightNormClassifier(nn.Module):
    """Weight-normalized linear, ReLU, dropout, weight-normalized linear: the classifier of the classic baselines.

    Deliberate difference: the authors' code drops in place, and current torch then raises in the backward pass, because
    the gradient of the ReLU needs the overwritten values.

    Args:
        input_dim: width of the fused vector.
        hidden_dim: width between the two maps.
        num_answers: size A of the answer vocabulary.
        dropout: dropout after the ReLU.
    """

    def __init__(self, input_dim: int, *, hidden_dim: int, num_answers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = WeightNormLinear(input_dim, hidden_dim, activation="relu")
        self.drop = nn.Dropout(dropout)
        self.output = WeightNormLinear(hidden_dim, num_answers)

    def forward(self, x: Tensor) -> Tensor:
        """Fused vector (B, input_dim) -> logits (B, A)."""
        return self.output(self.drop(self.hidden(x)))
