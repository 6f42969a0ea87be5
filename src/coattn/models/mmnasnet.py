"""MMNasNet (Yu et al. 2020, arXiv 2004.12070): a searched sequence of attention operations.

Letters: B batch, T question tokens, R regions, N elements of either side, D model width, E relation width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coattn.nn import ClassifierHead, RecurrentQuestionEncoder, VQAModel
from coattn.nn.attention import MultiHeadAttention
from coattn.nn.coattention import CoAttentionOutput
from coattn.nn.layers import FeedForward, Residual
from coattn.nn.maps import MapName, Maps, Side
from coattn.nn.question import Question
from coattn.nn.regions import pixel_boxes

from .original_padding import OriginalPadding


class RelatedRegions(NamedTuple):
    """Encoded regions and the embedded relations of their boxes.

    Attributes:
        tokens: (B, R, D).
        relations: (B, R, R, E), of the region of the row to the region of the column.
    """

    tokens: Tensor
    relations: Tensor


def box_relations(boxes: Tensor) -> Tensor:
    """Relations (B, R, R, 4) of boxes (B, R, 4), x1 y1 x2 y2 in pixels.

    The relation of box i to box j consists of the logarithms of |x_i - x_j| / w_i and |y_i - y_j| / h_i (x and y of the
    centers, each ratio at least 1e-3), w_i / w_j and h_i / h_j. A box of one pixel has size 1.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    relations = []
    for low, high in ((x1, x2), (y1, y2)):
        center, size = (low + high) / 2, high - low + 1  # (B, R)
        distance = (center[:, :, None] - center[:, None, :]) / size[:, :, None]
        ratio = size[:, :, None] / size[:, None, :]
        relations.append((distance.abs().clamp(min=1e-3).log(), ratio.log()))
    (x, width), (y, height) = relations
    return torch.stack((x, y, width, height), -1)


class RelationEncoder(nn.Module):
    """`linear(feature)` of each region, and `relu(linear(relation))` of each pair of boxes.

    Args:
        region_dim: width D_in of the region features.
        dim: width D of the region tokens.
        relation_dim: width E of the embedded relations.
        pixels: measure boxes in pixels, as the published models do; the model then needs `image_sizes`.
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


class StepInputs(NamedTuple):
    """The inputs of an operation other than the sequence that it updates.

    Attributes:
        mask: (B, N) of the updated sequence, True = real.
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

    This and the other operations never use fused attention. Near a relation of zero the gradient of the logarithm
    multiplies rounding errors by a million, so that gradients agree with the original's only in its order of steps.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(dim, num_heads=num_heads, dropout=dropout)
        self.residual = Residual(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor, inputs: StepInputs) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, N, D); the map is (B, H, N, N)."""
        update, weights = self.attn(x, x, inputs.mask, need_weights=True)
        return self.residual(x, update), weights


class GuidedAttention(SelfAttention):
    """GA: `norm(x + attention(x, question))`."""

    def forward(self, x: Tensor, inputs: StepInputs) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, N, D); the map is (B, H, N, T)."""
        update, weights = self.attn(x, inputs.question, inputs.question_mask, need_weights=True)
        return self.residual(x, update), weights


class RelationSelfAttention(SelfAttention):
    """RSA: as SA, with `log max(relu(linear(relations)), 1e-6)` added to the scores of each head."""

    def __init__(self, dim: int, *, num_heads: int, relation_dim: int, dropout: float, norm: str) -> None:
        super().__init__(dim, num_heads=num_heads, dropout=dropout, norm=norm)
        self.relation = nn.Linear(relation_dim, num_heads)

    def forward(self, x: Tensor, inputs: StepInputs) -> tuple[Tensor, Tensor | None]:
        """Update `x` (B, R, D); the map is (B, H, R, R)."""
        # (B, R, R, E) -> one bias for each head (B, H, R, R).
        bias = self.relation(inputs.relations).relu().clamp(min=1e-6).log().permute(0, 3, 1, 2)
        update, weights = self.attn(x, x, inputs.mask, bias=bias, need_weights=True)
        return self.residual(x, update), weights


class FeedForwardStep(nn.Module):
    """FFN: `norm(x + MLP(x))`, four times as wide inside."""

    def __init__(self, dim: int, *, dropout: float, norm: str) -> None:
        super().__init__()
        self.ffn = FeedForward(dim, dropout=dropout, norm=norm)

    def forward(self, x: Tensor, inputs: StepInputs) -> tuple[Tensor, None]:
        """Update `x` (B, N, D); there is no map."""
        return self.ffn(x), None


class MMNasNetCoAttention(nn.Module):
    """The searched backbone: operations on the question, then operations on the regions, guided by the question.

    Args:
        dim: width of both sides.
        question_operations: "SA" and "FFN", in their order.
        region_operations: "SA", "FFN", "GA" and "RSA", in their order.
        num_heads: heads of SA and GA.
        relation_heads: heads of RSA.
        relation_dim: width E of the embedded relations.
        dropout: dropout throughout.
        norm: name of the norm after each operation, see `layers.make_norm`.

    Raises:
        ValueError: an operation is unknown on its side, or a number of heads does not divide the width.
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

        Maps are named `layers.<i>.<rows>_to_<columns>`; i counts the operations of both lists from 0.
        """
        # Operations on the question.
        tokens, maps = question.tokens, Maps()
        inputs = StepInputs(question_mask, tokens, question_mask, regions.relations)
        for place, step in enumerate(self.question_steps):
            tokens, weights = step(tokens, inputs)
            if need_weights and weights is not None:
                maps[str(MapName(f"layers.{place}", "question", "question"))] = weights
        # Operations on the regions, which read the updated question.
        inputs = StepInputs(region_mask, tokens, question_mask, regions.relations)
        x = regions.tokens
        for place, step in enumerate(self.region_steps):
            x, weights = step(x, inputs)
            if need_weights and weights is not None:
                part = f"layers.{len(self.question_steps) + place}"
                columns: Side = "question" if self.region_operations[place] == "GA" else "regions"
                maps[str(MapName(part, "regions", columns))] = weights
        return CoAttentionOutput(tokens, x, (), maps)


# The result of the search for VQA v2, from openvqa's two configurations.
QUESTION_OPERATIONS = ("SA", "SA", "SA", "SA", "FFN", "FFN", "FFN", "FFN", "SA", "FFN", "FFN", "FFN")
REGION_OPERATIONS = (
    *("GA", "GA", "FFN", "FFN", "GA", "FFN", "RSA", "GA", "FFN"),
    *("GA", "RSA", "FFN", "RSA", "SA", "FFN", "RSA", "GA", "FFN"),
)


def mmnasnet_small(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    question_operations: Sequence[str] = QUESTION_OPERATIONS,
    region_operations: Sequence[str] = REGION_OPERATIONS,
    dim: int = 512,
    num_heads: int = 8,
    relation_heads: int = 8,
    relation_dim: int = 64,
    pixels: bool = True,
    pooling_dim: int = 512,
    joint_dim: int = 1024,
    num_glimpses: int = 1,
    dropout: float = 0.1,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """MMNasNet (Yu et al. 2020, arXiv 2004.12070), with the numbers of its authors' *small* model for VQA v2.

    Encoders and head are MCAN's. Between them is a list of operations on the question and then one on the regions: SA
    and FFN as in MCAN, GA (the regions attend to the question) and RSA (self-attention of the regions, with a bias from
    the relations of their boxes), each followed by residual and norm. The model needs boxes and image sizes.
    Reported elsewhere for the paper's single model: 73.86 % on VQA v2 test-std (not checked in the paper; the features
    are unknown).
    Deliberate difference: masks come from lengths, and a side without real elements pools to zeros.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        question_operations: "SA" and "FFN", in their order.
        region_operations: "SA", "FFN", "GA" and "RSA", in their order.
        dim: model width.
        num_heads: attention heads of SA and GA.
        relation_heads: attention heads of RSA.
        relation_dim: width of the embedded relations of boxes.
        pixels: measure boxes in pixels, as the published models do.
        pooling_dim: inner width of the attentional reduction.
        joint_dim: width of the fused vector.
        num_glimpses: glimpses of the attentional reduction.
        dropout: dropout throughout.
        faithful: show padding as the authors' code does: empty questions and images attend to their padding, and the
            encoders read padding, which changes only the map rows that belong to padding.
        padded_tokens: length to which `faithful` pads or cuts questions; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.

    Raises:
        ValueError: an unknown operation, or sizes that do not fit together.
    """
    model = VQAModel(
        RecurrentQuestionEncoder(num_words=num_words, question_dim=question_dim, embedding_dim=embedding_dim, dim=dim),
        region_encoder=RelationEncoder(region_dim, dim=dim, relation_dim=relation_dim, pixels=pixels),
        coattention=MMNasNetCoAttention(
            dim,
            question_operations=question_operations,
            region_operations=region_operations,
            num_heads=num_heads,
            relation_heads=relation_heads,
            relation_dim=relation_dim,
            dropout=dropout,
        ),
        head=ClassifierHead(
            dim,
            dim,
            num_answers,
            pooling_dim=pooling_dim,
            joint_dim=joint_dim,
            num_glimpses=num_glimpses,
            norm="unbiased",
            dropout=dropout,
        ),
    )
    if not faithful:
        return model
    return OriginalPadding(model, encoders=True, num_tokens=padded_tokens, num_regions=padded_regions)


# MMNasNet with the numbers of openvqa's *large* model; every size of `mmnasnet_small` can be given.
mmnasnet_large = partial(mmnasnet_small, dim=1024, num_heads=16, relation_heads=16)
