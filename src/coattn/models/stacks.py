"""Presets of modern stacks of co-attention layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from coattn.nn import (
    AlternatingCoAttention,
    AttentionLayer,
    ClassifierHead,
    CoAttentionLayer,
    CoAttentionStack,
    DenseCoAttention,
    GuidedAttention,
    ModularCoAttention,
    ParallelCoAttention,
    PlainQuestionEncoder,
    QuestionGate,
    QuestionSelfAttention,
    RecurrentQuestionEncoder,
    RegionEncoder,
    SelfGuidedAttention,
    VQAModel,
)
from coattn.nn.recurrence import CELLS

LAYERS: dict[str, type[CoAttentionLayer]] = {
    "parallel": ParallelCoAttention,
    "alternating": AlternatingCoAttention,
    "dense": DenseCoAttention,
    "modular": ModularCoAttention,
    "question_self": QuestionSelfAttention,
    "self_guided": SelfGuidedAttention,
    "guided": GuidedAttention,
    "question_gate": QuestionGate,
}


def make_layer(
    name: str, question_dim: int, region_dim: int, *, num_heads: int, ffn_dim: int | None, dropout: float
) -> CoAttentionLayer:
    """One co-attention layer by its name in `LAYERS`; `ffn_dim` is unused for the dense layer and the gate.

    Raises:
        ValueError: unknown name.
    """
    if name not in LAYERS:
        raise ValueError(f"unknown co-attention layer {name!r}; known are {', '.join(LAYERS)}")
    layer = LAYERS[name]
    sizes: dict[str, Any] = {"num_heads": num_heads, "dropout": dropout}
    if issubclass(layer, AttentionLayer):
        sizes["ffn_dim"] = ffn_dim
    return layer(question_dim, region_dim, **sizes)


def make_question_encoder(
    kind: str,
    *,
    num_words: int | None,
    question_dim: int | None,
    embedding_dim: int,
    dim: int,
    bidirectional: bool,
    num_layers: int,
    num_positions: int,
    dropout: float,
) -> nn.Module:
    """Question encoder by kind: "lstm", "gru", or "none" (no recurrence, `num_positions` learned positions).

    Raises:
        ValueError: unknown kind.
    """
    if kind == "none":
        return PlainQuestionEncoder(
            num_words=num_words, question_dim=question_dim, dim=dim, num_positions=num_positions, dropout=dropout
        )
    if kind not in CELLS:
        known = ", ".join([*CELLS, "none"])
        raise ValueError(f"question_encoder must be one of {known}, got {kind!r}")
    return RecurrentQuestionEncoder(
        num_words=num_words,
        question_dim=question_dim,
        embedding_dim=embedding_dim,
        dim=dim,
        cell=kind,
        bidirectional=bidirectional,
        num_layers=num_layers,
        dropout=dropout,
    )


def stack(
    *,
    layers: Sequence[str],
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    num_layers: int = 1,
    share_weights: bool = False,
    dim: int = 256,
    num_heads: int = 4,
    ffn_dim: int | None = None,
    dropout: float = 0.1,
    question_encoder: str = "lstm",
    embedding_dim: int = 300,
    bidirectional: bool = False,
    recurrent_layers: int = 1,
    question_positions: int = 0,
    boxes: bool = False,
    region_positions: int = 0,
    standardized: bool = True,
    feature_dropout: float = 0.0,
    num_glimpses: int = 1,
    fusion: str = "sum",
    direct_question: bool = False,
    joint_dropout: float = 0.0,
) -> VQAModel:
    """A stack of co-attention layers, equal or mixed.

    Args:
        layers: names of layers in their order: "parallel", "alternating", "dense", "modular", "question_self",
            "self_guided", "guided", "question_gate", or one that was added to `LAYERS`.
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        num_layers: number of consecutive layers for each name in `layers`.
        share_weights: layers of one name are one layer, applied repeatedly (recurrent stacking).
        dim: model width of both sides.
        num_heads: attention heads per layer.
        ffn_dim: inner width of feed-forward steps; `4 * dim` when None.
        dropout: dropout throughout.
        question_encoder: "lstm", "gru" or "none".
        embedding_dim: width of word embeddings under a recurrence.
        bidirectional: recurrence in both directions.
        recurrent_layers: layers of the recurrence.
        question_positions: learned positions when `question_encoder` is "none"; 0 for none.
        boxes: add the regions' box geometry; the model then needs boxes.
        region_positions: learned positions for grids of fixed size, one for each region at most; 0 for none.
        standardized: z-score region features with statistics of the training images.
        feature_dropout: dropout on the region features, before the linear map; useful with few training images.
        num_glimpses: attention maps of each pooling.
        fusion: "sum", "product" or "gated", see `nn.heads`.
        direct_question: the question encoder's summary joins the pooled question.
        joint_dropout: dropout on the fused vector.

    Raises:
        ValueError: unknown names, or sizes that do not fit together.
    """
    names = [name for name in layers for _ in range(num_layers)]
    distinct = list(dict.fromkeys(names)) if share_weights else names
    return VQAModel(
        make_question_encoder(
            question_encoder,
            num_words=num_words,
            question_dim=question_dim,
            embedding_dim=embedding_dim,
            dim=dim,
            bidirectional=bidirectional,
            num_layers=recurrent_layers,
            num_positions=question_positions,
            dropout=dropout,
        ),
        region_encoder=RegionEncoder(
            region_dim,
            dim=dim,
            boxes=boxes,
            num_positions=region_positions,
            standardized=standardized,
            feature_dropout=feature_dropout,
            norm="layer",
            dropout=dropout,
        ),
        coattention=CoAttentionStack(
            [make_layer(name, dim, dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout) for name in distinct],
            order=[distinct.index(name) for name in names] if share_weights else None,
        ),
        head=ClassifierHead(
            dim,
            dim,
            num_answers,
            pooling_dim=dim,
            joint_dim=2 * dim,
            num_glimpses=num_glimpses,
            summary_dim=dim if direct_question else None,
            fusion=fusion,
            dropout=dropout,
            joint_dropout=joint_dropout,
        ),
    )


# Stacks of one kind of layer, two layers deep by default: `num_layers` and every size of `stack` can be given.
parallel = partial(stack, layers=("parallel",), num_layers=2)
alternating = partial(stack, layers=("alternating",), num_layers=2)
dense = partial(stack, layers=("dense",), num_layers=2)
# Encoder-decoder, the better of MCAN's two orders; the other, *stacking*, is `stack(layers=["modular"] * n)`.
modular = partial(stack, layers=("question_self", "self_guided"), num_layers=2)
