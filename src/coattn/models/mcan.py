"""MCAN (Yu et al. 2019, arXiv 1906.10770): self-attention and guided attention in two stacks."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from coattn.nn import (
    ClassifierHead,
    CoAttentionLayer,
    CoAttentionStack,
    QuestionSelfAttention,
    RecurrentQuestionEncoder,
    RegionEncoder,
    SelfGuidedAttention,
    VQAModel,
)
from coattn.nn.regions import box_geometry, pixel_boxes

from .original_padding import OriginalPadding


class RegionGeometryEncoder(nn.Module):
    """`linear([feature, linear(box geometry)])`: openvqa's adapter for MCAN with boxes, without activation or norm.

    Args:
        region_dim: width D_in of the region features.
        dim: width D of the region tokens.
        geometry_dim: width of the embedded box geometry (x1, y1, x2, y2, area).
        pixels: measure boxes in pixels instead of parts of the image; the model then needs `image_sizes`.
    """

    def __init__(self, region_dim: int, *, dim: int, geometry_dim: int, pixels: bool = False) -> None:
        super().__init__()
        self.region_dim, self.dim, self.geometry_dim, self.pixels = region_dim, dim, geometry_dim, pixels
        self.geometry = nn.Linear(5, geometry_dim)
        self.features = nn.Linear(region_dim + geometry_dim, dim)

    def forward(
        self, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, image_sizes: Tensor | None = None
    ) -> Tensor:
        """Encode features (B, R, D_in) with `mask` (B, R) and `boxes` (B, R, 4) in [0, 1] -> (B, R, D).

        Raises:
            ValueError: wrong feature width, boxes missing, or their pixels unknown.
        """
        if regions.shape[-1] != self.region_dim:
            raise ValueError(f"expected region features of width {self.region_dim}, got {tuple(regions.shape)}")
        if boxes is None:
            raise ValueError("this model uses box geometry: pass boxes (B, R, 4) in [0, 1]")
        if self.pixels:
            boxes = pixel_boxes(boxes, image_sizes)
        geometry = self.geometry(box_geometry(boxes.to(self.features.weight.dtype)))  # (B, R, geometry_dim)
        tokens = self.features(torch.cat((regions.to(geometry.dtype), geometry), -1))
        return tokens * mask[:, :, None]


Order = Literal["encoder_decoder", "stacking"]


def mcan_small(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    num_layers: int = 6,
    dim: int = 512,
    num_heads: int = 8,
    ffn_dim: int = 2048,
    pooling_dim: int = 512,
    joint_dim: int = 1024,
    num_glimpses: int = 1,
    geometry_dim: int | None = None,
    geometry_pixels: bool = False,
    order: Order = "encoder_decoder",
    dropout: float = 0.1,
    standardized: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """MCAN (Yu et al. 2019, arXiv 1906.10770), with the numbers of its authors' *small* model.

    LSTM over word vectors, `num_layers` SA layers on the question, as many SGA layers on the regions (boxes, or the
    cells of a grid), attentional reduction of each side, sum, norm, classifier; the authors' layer norm
    (`UnbiasedLayerNorm`) throughout. Every SGA layer is guided by the last SA layer (order `encoder_decoder`, the
    released models) or by the SA layer of the same depth (order `stacking`). 57.6 M parameters with
    20,000 words, 2048-wide regions and 3,129 answers. Published: 70.63 % on VQA v2 test-dev, encoder-decoder, with
    bottom-up features and trained on train+val+vg. Deliberate difference: masks come from lengths, and a side without
    real elements pools to zeros.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        num_layers: SA layers, and SGA layers.
        dim: model width.
        num_heads: attention heads.
        ffn_dim: inner width of feed-forward steps.
        pooling_dim: inner width of the attentional reduction.
        joint_dim: width of the fused vector.
        num_glimpses: glimpses of the attentional reduction.
        geometry_dim: width of the embedded box geometry that is appended to the features; None leaves boxes out.
        geometry_pixels: measure boxes in pixels, not in parts of the image.
        order: "encoder_decoder" or "stacking".
        dropout: dropout throughout.
        standardized: z-score region features with statistics of the training images; the original does not.
        faithful: show padding as the authors' code does: empty questions and images attend to their padding, and the
            encoders read padding, which changes only the map rows that belong to padding.
        padded_tokens: length to which `faithful` pads or cuts questions; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.

    Raises:
        ValueError: unknown order, sizes that do not fit together, or standardized features with box geometry.
    """
    if order not in typing.get_args(Order):
        raise ValueError(f"order must be one of {', '.join(typing.get_args(Order))}, got {order!r}")
    if standardized and geometry_dim is not None:
        raise ValueError(
            f"standardized and box geometry cannot be combined: leave out one, got geometry_dim {geometry_dim}"
        )

    def layer(kind: Callable[..., CoAttentionLayer]) -> CoAttentionLayer:
        return kind(dim, dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, norm="unbiased")

    kinds = [QuestionSelfAttention] * num_layers + [SelfGuidedAttention] * num_layers
    if order == "stacking":
        kinds = [QuestionSelfAttention, SelfGuidedAttention] * num_layers
    model = VQAModel(
        RecurrentQuestionEncoder(num_words=num_words, question_dim=question_dim, embedding_dim=embedding_dim, dim=dim),
        region_encoder=RegionEncoder(region_dim, dim=dim, standardized=standardized)
        if geometry_dim is None
        else RegionGeometryEncoder(region_dim, dim=dim, geometry_dim=geometry_dim, pixels=geometry_pixels),
        coattention=CoAttentionStack([layer(kind) for kind in kinds]),
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


# MCAN with the numbers of its authors' *large* model; every size of `mcan_small` can be given.
mcan_large = partial(mcan_small, dim=1024, ffn_dim=4096, joint_dim=2048)
