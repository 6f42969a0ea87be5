"""MMNasNet (Yu et al. 2020, arXiv 2004.12070): attention operations in an order that a search found.

Letters: B batch, T question tokens, R regions, H heads, D model width, E width of embedded relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..coattention import CoAttentionOutput
from ..coattention.base import Maps
from ..layers import FeedForward, Residual
from ..question import Question
from ..regions import pixel_boxes


class RelatedRegions(NamedTuple):
    """Encoded regions and how each lies to each other.

    Attributes:
        tokens: (B, R, D).
        relations: (B, R, R, E), of the region of each row to that of each column.
    """

    tokens: Tensor
    relations: Tensor


def box_relations(boxes: Tensor) -> Tensor:
    """How boxes (B, R, 4), x1 y1 x2 y2 in pixels, lie to each other -> (B, R, R, 4).

    Of box i to box j the logarithms of |x_i - x_j| / w_i, |y_i - y_j| / h_i (of centres, both at least 1e-3),
    w_i / w_j and h_i / h_j; a box of one pixel has size 1.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    relations = []
    for low, high in ((x1, x2), (y1, y2)):
        centre, size = (low + high) / 2, high - low + 1
        distance = (centre[:, :, None] - centre[:, None, :]) / size[:, :, None]
        ratio = size[:, :, None] / size[:, None, :]
        relations.append((distance.abs().clamp(min=1e-3).log(), ratio.log()))
    (x, width), (y, height) = relations
    return torch.stack((x, y, width, height), -1)


class RelationEncoder(nn.Module):
    """`linear(feature)` for each region, and `relu(linear(relations of its box))` to every other.

    Args:
        region_dim: width D_in of the region features.
        dim: width D of the region tokens.
        relation_dim: width E of the embedded relations.
        pixels: boxes are measured in pixels, as the published models do; then `image_sizes` are needed.
    """

    def __init__(self, region_dim: int, *, dim: int, relation_dim: int, pixels: bool = True) -> None:
        super().__init__()
        self.region_dim, self.dim, self.relation_dim, self.pixels = region_dim, dim, relation_dim, pixels
        self.features = nn.Linear(region_dim, dim)
        self.relations = nn.Linear(4, relation_dim)

    def forward(
        self, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, image_sizes: Tensor | None = None
    ) -> RelatedRegions:
        """Encode features (B, R, D_in) with `mask` (B, R), `boxes` (B, R, 4) in [0, 1] and `image_sizes` (B, 2).

        Raises:
            ValueError: wrong feature width, boxes missing, or their pixels unknown.
        """
        if regions.shape[-1] != self.region_dim:
            raise ValueError(f"expected region features of width {self.region_dim}, got {tuple(regions.shape)}")
        if boxes is None:
            raise ValueError("this model relates regions by their boxes: pass boxes (B, R, 4) in [0, 1]")
        if self.pixels:
            boxes = pixel_boxes(boxes, image_sizes)
        weight = self.features.weight
        tokens = self.features(regions.to(weight.dtype)) * mask[:, :, None]
        return RelatedRegions(tokens, self.relations(box_relations(boxes).to(weight.dtype)).relu())


class Sources(NamedTuple):
    """What the operations on one side may attend to besides that side itself.

    Attributes:
        mask: (B, N) of the side, True = real.
        question: (B, T, D).
        question_mask: (B, T).
        relations: (B, R, R, E).
    """

    mask: Tensor
    question: Tensor
    question_mask: Tensor
    relations: Tensor


class SelfAttention(nn.Module):
    """SA: `norm(x + attention(x, x))`.

    This and the other operations never use fused attention: where a relation is near zero, the gradient of its
    logarithm makes rounding a million times larger, and only the original's order of steps gives the original's.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads=num_heads, dropout=dropout)
        self.residual = Residual(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor, sources: Sources) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, N, D); the map is (B, H, N, N)."""
        update, weights = self.attention(x, x, sources.mask, need_weights=True)
        return self.residual(x, update), weights


class GuidedAttention(SelfAttention):
    """GA: `norm(x + attention(x, question))`."""

    def forward(self, x: Tensor, sources: Sources) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, N, D); the map is (B, H, N, T)."""
        update, weights = self.attention(x, sources.question, sources.question_mask, need_weights=True)
        return self.residual(x, update), weights


class RelationSelfAttention(SelfAttention):
    """RSA: as SA, with `log max(relu(linear(relations)), 1e-6)` added to the scores of each head."""

    def __init__(self, dim: int, *, num_heads: int, relation_dim: int, dropout: float, norm: str) -> None:
        super().__init__(dim, num_heads=num_heads, dropout=dropout, norm=norm)
        self.relation = nn.Linear(relation_dim, num_heads)

    def forward(self, x: Tensor, sources: Sources) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, R, D); the map is (B, H, R, R)."""
        bias = self.relation(sources.relations).relu().clamp(min=1e-6).log().permute(0, 3, 1, 2)
        update, weights = self.attention(x, x, sources.mask, bias=bias, need_weights=True)
        return self.residual(x, update), weights


class FeedForwardStep(nn.Module):
    """FFN: `norm(x + MLP(x))`, four times as wide inside."""

    def __init__(self, dim: int, *, dropout: float, norm: str) -> None:
        super().__init__()
        self.ffn = FeedForward(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor, sources: Sources) -> tuple[Tensor, None]:
        """Update `x` (B, N, D); there is no map."""
        return self.ffn(x), None


class MMNasNetCoAttention(nn.Module):
    """The searched backbone: operations on the question, then operations on the regions that it guides.

    Args:
        dim: width of both sides.
        question_operations: "SA" and "FFN", in their order.
        region_operations: "SA", "FFN", "GA" and "RSA", in their order.
        num_heads: heads of SA and GA.
        relation_heads: heads of RSA.
        relation_dim: width E of the embedded relations.
        dropout: dropout throughout.
        norm: name of the normalisation after each operation, see `layers.make_norm`.

    Raises:
        ValueError: an operation that is not known on that side, or heads that do not divide the width.
    """

    def __init__(
        self,
        dim: int,
        *,
        question_operations: Sequence[str],
        region_operations: Sequence[str],
        num_heads: int,
        relation_heads: int,
        relation_dim: int,
        dropout: float = 0.0,
        norm: str = "unbiased",
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.relation_heads, self.relation_dim = dim, num_heads, relation_heads, relation_dim
        self.question_operations, self.region_operations = list(question_operations), list(region_operations)
        self.dropout, self.norm = dropout, norm
        make = {
            "SA": lambda: SelfAttention(dim, num_heads=num_heads, dropout=dropout, norm=norm),
            "FFN": lambda: FeedForwardStep(dim, dropout=dropout, norm=norm),
            "GA": lambda: GuidedAttention(dim, num_heads=num_heads, dropout=dropout, norm=norm),
            "RSA": lambda: RelationSelfAttention(
                dim, num_heads=relation_heads, relation_dim=relation_dim, dropout=dropout, norm=norm
            ),
        }
        for side, operations, known in (
            ("question", self.question_operations, ("SA", "FFN")),
            ("region", self.region_operations, tuple(make)),
        ):
            if unknown := [name for name in operations if name not in known]:
                raise ValueError(f"{side}_operations must be of {', '.join(known)}, got {unknown[0]!r}")
        self.question_steps = nn.ModuleList(make[name]() for name in self.question_operations)
        self.region_steps = nn.ModuleList(make[name]() for name in self.region_operations)

    def forward(
        self,
        question: Question,
        regions: RelatedRegions,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Apply the operations to the tokens of `question` (B, T, D) and to `regions`.

        Maps are named `layers.<place>.<who>_to_<whom>`, places counted from 0 through both lists.
        """
        tokens, maps = question.tokens, Maps()
        sources = Sources(question_mask, tokens, question_mask, regions.relations)
        for place, step in enumerate(self.question_steps):
            tokens, weights = step(tokens, sources)
            if need_weights and weights is not None:
                maps[f"layers.{place}.question_to_question"] = weights
        sources = Sources(region_mask, tokens, question_mask, regions.relations)
        x = regions.tokens
        for place, step in enumerate(self.region_steps):
            x, weights = step(x, sources)
            if need_weights and weights is not None:
                whom = "question" if self.region_operations[place] == "GA" else "regions"
                maps[f"layers.{len(self.question_steps) + place}.regions_to_{whom}"] = weights
        return CoAttentionOutput(tokens, x, (), maps)
