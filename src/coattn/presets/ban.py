"""Bilinear attention networks (Kim et al. 2018, arXiv 1805.07932)."""

from __future__ import annotations

from coattn.nn import OriginalPadding, PlainRegionEncoder, RecurrentQuestionEncoder, VQAModel
from coattn.nn.baselines import BilinearAttention, TokenSumHead


def ban(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    dim: int = 1024,
    hidden_dim: int | None = None,
    num_glimpses: int = 8,
    classifier_dim: int = 2048,
    dropout: float = 0.2,
    classifier_dropout: float = 0.5,
    inplace_dropout: bool = False,
    standardised: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """BAN (Kim et al. 2018, arXiv 1805.07932) as openvqa has it, with the numbers of its *BAN-8*.

    A GRU over the word vectors, bilinear attention over all pairs of a word and a raw region feature, as many residual
    glimpses, the sum over the words, a classifier; every map weight-normalised. Equations: `BilinearAttention`.
    Published by openvqa: 66.00 % on VQA v2 val with 8 glimpses and 65.86 % with 4, trained on train; 69.48 % and
    69.31 % on test-dev, trained on train+val+vg. (The authors' own: 70.04 % on test-dev with a counting module, which
    is not part of this one.) Deliberate differences: words at padding neither take attention nor enter the sum, an
    empty image pools to zeros (the original gives NaN), and the dropout before the last map is not in place.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Exactly one of the two is set.
        embedding_dim: width of word embeddings.
        dim: width of the question tokens.
        hidden_dim: rank of the bilinear forms, a multiple of `dim`; `3 * dim` when None. (openvqa computes it before
            its settings file can change the width, so that a file which does describes a model that cannot run.)
        num_glimpses: glimpses.
        classifier_dim: width inside the classifier.
        dropout: dropout on the inputs of the bilinear maps.
        classifier_dropout: dropout in the classifier, and inside the attention's logits.
        inplace_dropout: the original's fault that keeps today's torch from training it, see `WeightNormClassifier`.
        standardised: z-score region features with statistics of the training images, which the original does not.
        faithful: show padding as the authors' code does: words at padding take part, an empty image gives NaN.
        padded_tokens: see `coattn.presets`.
        padded_regions: see `coattn.presets`.

    Raises:
        ValueError: `hidden_dim` is no multiple of `dim`.
    """
    return VQAModel(
        RecurrentQuestionEncoder(
            num_words=num_words, question_dim=question_dim, embedding_dim=embedding_dim, dim=dim, cell="gru"
        ),
        region_encoder=PlainRegionEncoder(region_dim, standardised=standardised),
        coattention=BilinearAttention(
            dim,
            region_dim,
            hidden_dim=3 * dim if hidden_dim is None else hidden_dim,
            num_glimpses=num_glimpses,
            dropout=dropout,
            attention_dropout=classifier_dropout,
        ),
        head=TokenSumHead(
            dim,
            num_answers,
            hidden_dim=classifier_dim,
            dropout=classifier_dropout,
            inplace_dropout=inplace_dropout,
        ),
        padding=OriginalPadding(question=True, empty="nan", num_tokens=padded_tokens, num_regions=padded_regions)
        if faithful
        else None,
    )
