"""MMNasNet (Yu et al. 2020, arXiv 2004.12070)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from coattn.nn import ClassifierHead, OriginalPadding, RecurrentQuestionEncoder, VQAModel
from coattn.nn.baselines import MMNasNetCoAttention, RelationEncoder

# What the search found for VQA v2, as openvqa's two configurations spell it.
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

    MCAN's beginning and end; between them a list of operations on the question and then one on the regions: SA and FFN
    as in MCAN, GA (the regions read the question) and RSA (self-attention of the regions whose scores know how their
    boxes lie to each other), each with residual and norm of its own. Needs boxes and image sizes. Listed for the
    paper's single model: 73.86 % on VQA v2 test-std (not checked in the paper itself, nor with which features).
    Deliberate difference: masks come from lengths, and a side without real elements pools to zeros.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Exactly one of the two is set.
        embedding_dim: width of word embeddings.
        question_operations: "SA" and "FFN", in their order.
        region_operations: "SA", "FFN", "GA" and "RSA", in their order.
        dim: model width.
        num_heads: attention heads of SA and GA.
        relation_heads: attention heads of RSA.
        relation_dim: width of the embedded relations of boxes.
        pixels: measure boxes in pixels.
        pooling_dim: inner width of the attentional reduction.
        joint_dim: width of the fused vector.
        num_glimpses: glimpses of the attentional reduction.
        dropout: dropout throughout.
        faithful: show padding as the authors' code does: where a question or an image is empty, and to the encoders,
            which gives padding rows of its own in the maps.
        padded_tokens: see `coattn.presets`.
        padded_regions: see `coattn.presets`.

    Raises:
        ValueError: an unknown operation, or sizes that do not fit together.
    """
    return VQAModel(
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
        padding=OriginalPadding(encoders=True, num_tokens=padded_tokens, num_regions=padded_regions)
        if faithful
        else None,
    )


# MMNasNet with the numbers of openvqa's *large* model; every size of `mmnasnet_small` can be given.
mmnasnet_large = partial(mmnasnet_small, dim=1024, num_heads=16, relation_heads=16)
