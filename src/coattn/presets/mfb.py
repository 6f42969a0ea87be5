"""MFB (Yu et al. 2017, arXiv 1708.01471) and MFH (Yu et al. 2018, arXiv 1708.03619)."""

from __future__ import annotations

from functools import partial

from coattn.nn import OriginalPadding, PlainRegionEncoder, RecurrentQuestionEncoder, VQAModel
from coattn.nn.baselines import FactorizedCoAttention, FactorizedHead


def mfb(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    dim: int = 1024,
    hidden_dim: int = 512,
    joint_dim: int = 1000,
    num_factors: int = 5,
    num_blocks: int = 1,
    question_glimpses: int = 2,
    region_glimpses: int = 2,
    dropout: float = 0.1,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """MFB with co-attention (arXiv 1708.01471) as openvqa has it; with two blocks it is MFH (arXiv 1708.03619).

    An LSTM over the word vectors, question attention, image attention guided by it, and factorized bilinear pooling of
    the two; a linear classifier. Equations: `FactorizedBilinear`, `FactorizedCoAttention`. Published by openvqa: MFB
    65.35 % and MFH 66.18 % on VQA v2 val, trained on train; 68.29 % and 69.11 % on test-dev, trained on train+val. (The
    authors' own, on grid features and with Visual Genome: 65.09 % and 66.12 % on test-dev.) Deliberate differences:
    padding is masked in both attentions and in the norm over all regions. As in openvqa's code, the image attention
    weighs the features after their dropout.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Exactly one of the two is set.
        embedding_dim: width of word embeddings.
        dim: width of the question tokens.
        hidden_dim: width inside the attentions' MLPs.
        joint_dim: width of the bilinear pooling, O.
        num_factors: factors of the bilinear pooling, K.
        num_blocks: blocks of the last bilinear pooling: 1 for MFB, 2 for MFH as published.
        question_glimpses: maps over the question.
        region_glimpses: maps over the regions.
        dropout: dropout throughout, on the region features too.
        faithful: show padding as the authors' code does: it takes part everywhere.
        padded_tokens: see `coattn.presets`.
        padded_regions: see `coattn.presets`.
    """
    return VQAModel(
        RecurrentQuestionEncoder(
            num_words=num_words,
            question_dim=question_dim,
            embedding_dim=embedding_dim,
            dim=dim,
            dropout=dropout,
        ),
        region_encoder=PlainRegionEncoder(region_dim, dropout=dropout),
        coattention=FactorizedCoAttention(
            dim,
            region_dim,
            hidden_dim=hidden_dim,
            joint_dim=joint_dim,
            num_factors=num_factors,
            question_glimpses=question_glimpses,
            region_glimpses=region_glimpses,
            dropout=dropout,
        ),
        head=FactorizedHead(
            question_glimpses * dim,
            region_glimpses * region_dim,
            num_answers,
            joint_dim=joint_dim,
            num_factors=num_factors,
            num_blocks=num_blocks,
            dropout=dropout,
        ),
        padding=OriginalPadding(question=True, regions=True, num_tokens=padded_tokens, num_regions=padded_regions)
        if faithful
        else None,
    )


# MFH of order two, as published; every size of `mfb` can be given.
mfh = partial(mfb, num_blocks=2)
