"""Bottom-up top-down attention (Anderson et al. 2018, arXiv 1707.07998; Teney et al. 2018, arXiv 1708.02711)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from coattn.nn import PlainRegionEncoder, RecurrentQuestionEncoder, VQAModel
from coattn.nn.attention import masked_softmax
from coattn.nn.coattention import CoAttentionOutput
from coattn.nn.heads import HeadOutput
from coattn.nn.maps import POOLING, name_maps
from coattn.nn.question import Question

from .original_padding import OriginalPadding
from .weight_norm import WeightNormClassifier, WeightNormLinear


class ConcatenationScore(nn.Module):
    """`w f([v; q])`: score regions by a layer over their concatenation with the question.

    Differences from the papers (arXiv 1707.07998, 1708.02711), as in both well-known implementations: linear maps are
    weight-normalized, and ReLU or ELU replaces the gated tanh.

    Args:
        question_dim: width of the question vector.
        region_dim: width of the regions.
        hidden_dim: width of the layer.
        projected: apply a linear map of the same width to each side first (openvqa).
        activation: of the layer, see `WeightNormLinear`.
        dropout: dropout on the concatenation.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        hidden_dim: int,
        projected: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.hidden_dim = question_dim, region_dim, hidden_dim
        self.projected, self.activation, self.dropout = projected, activation, dropout
        self.question = WeightNormLinear(question_dim, question_dim) if projected else nn.Identity()
        self.regions = WeightNormLinear(region_dim, region_dim) if projected else nn.Identity()
        self.hidden = WeightNormLinear(region_dim + question_dim, hidden_dim, activation=activation, dropout=dropout)
        self.output = WeightNormLinear(hidden_dim, 1)

    def forward(self, question: Tensor, regions: Tensor) -> Tensor:
        """Score regions (B, R, region_dim) for a question (B, question_dim) -> (B, R)."""
        q = self.question(question)[:, None].expand(-1, regions.shape[1], -1)  # (B, R, question_dim)
        return self.output(self.hidden(torch.cat((self.regions(regions), q), -1))).squeeze(-1)


class ProductScore(nn.Module):
    """`w (f(v) * g(q))`: score regions by their product with the question, hengyuan-hu's "new attention".

    Args:
        question_dim: width of the question vector.
        region_dim: width of the regions.
        hidden_dim: width of the product.
        activation: of the two maps, see `WeightNormLinear`.
        dropout: dropout on the product.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        hidden_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.hidden_dim = question_dim, region_dim, hidden_dim
        self.activation, self.dropout = activation, dropout
        self.question = WeightNormLinear(question_dim, hidden_dim, activation=activation)
        self.regions = WeightNormLinear(region_dim, hidden_dim, activation=activation)
        self.output = WeightNormLinear(hidden_dim, 1, dropout=dropout)

    def forward(self, question: Tensor, regions: Tensor) -> Tensor:
        """Score regions (B, R, region_dim) for a question (B, question_dim) -> (B, R)."""
        return self.output(self.regions(regions) * self.question(question)[:, None]).squeeze(-1)


class TopDownAttention(nn.Module):
    """`a = softmax(score(v, q))`, `v' = sum a v`: attention over regions from the question's summary alone.

    The question is not attended to. This is the baseline without co-attention.

    Args:
        score: `(question (B, D), regions (B, R, D')) -> (B, R)`, `ConcatenationScore` or `ProductScore`.
    """

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(
        self,
        question: Question,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Pool `regions` (B, R, region_dim); return the pair of the question's summary and the pooled regions.

        Map: `pooling.regions` (B, 1, 1, R).
        """
        regions = regions.to(question.summary.dtype)
        weights = masked_softmax(self.score(question.summary, regions), region_mask)[:, None]  # (B, 1, R)
        attended = (weights @ regions).squeeze(1)  # (B, region_dim)
        maps = name_maps(POOLING, regions=weights[:, None]) if need_weights else {}
        return CoAttentionOutput(question.tokens, regions, ((question.summary, attended),), maps)


class ProductHead(nn.Module):
    """`classify(f(q) * g(v))`: map the two pooled vectors to one width, multiply, classify.

    Args:
        question_dim: width of the pooled question.
        region_dim: width of the pooled regions.
        num_answers: size A of the answer vocabulary.
        joint_dim: width of the product.
        hidden_dim: width inside the classifier.
        activation: of the two maps, see `WeightNormLinear`.
        dropout: dropout inside the classifier.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answers: int,
        *,
        joint_dim: int,
        hidden_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.joint_dim, self.hidden_dim, self.activation, self.dropout = joint_dim, hidden_dim, activation, dropout
        self.question = WeightNormLinear(question_dim, joint_dim, activation=activation)
        self.regions = WeightNormLinear(region_dim, joint_dim, activation=activation)
        self.classify = WeightNormClassifier(joint_dim, hidden_dim=hidden_dim, num_answers=num_answers, dropout=dropout)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers, logits (B, A), from the one pooled pair of `attended`."""
        ((pooled_question, pooled_regions),) = attended.pooled
        return HeadOutput(self.classify(self.question(pooled_question) * self.regions(pooled_regions)), {})


def butd(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    dim: int = 1024,
    classifier_dim: int = 2048,
    dropout: float = 0.2,
    classifier_dropout: float = 0.5,
    standardized: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """Bottom-up top-down attention (arXiv 1707.07998, 1708.02711) as implemented by openvqa.

    With `q` the last state of an LSTM over the word vectors, `v_r` the raw features, and every map weight-normalized::

        a = softmax_r(w elu(W [P v_r; P' q])),  v' = sum_r a_r v_r
        logits = W_o relu(W_c (elu(W_q q) * elu(W_v v')))

    Published by openvqa: 63.84 % on VQA v2 val, trained on train; 67.54 % on test-dev, trained on train+val+vg. (The
    papers report 63.15 % on val with a GRU and gated tanh.) Deliberate differences: padding is masked (the original
    reads the question to the end of its padding and attends to padded regions), an image without regions pools to
    zeros, and the dropout before the last map is not in place.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        dim: width of the question vector, of the attention's layer and of the product.
        classifier_dim: width inside the classifier.
        dropout: dropout in the attention.
        classifier_dropout: dropout in the classifier.
        standardized: z-score region features with statistics of the training images; the original does not.
        faithful: show padding as the authors' code does.
        padded_tokens: length to which `faithful` pads or cuts questions; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.
    """
    score = ConcatenationScore(dim, region_dim, hidden_dim=dim, projected=True, activation="elu", dropout=dropout)
    model = VQAModel(
        RecurrentQuestionEncoder(num_words=num_words, question_dim=question_dim, embedding_dim=embedding_dim, dim=dim),
        region_encoder=PlainRegionEncoder(region_dim, standardized=standardized),
        coattention=TopDownAttention(score),
        head=ProductHead(
            dim,
            region_dim,
            num_answers,
            joint_dim=dim,
            hidden_dim=classifier_dim,
            activation="elu",
            dropout=classifier_dropout,
        ),
    )
    if not faithful:
        return model
    return OriginalPadding(model, question=True, regions=True, num_tokens=padded_tokens, num_regions=padded_regions)


SCORES: dict[str, type[ConcatenationScore] | type[ProductScore]] = {
    "concatenation": ConcatenationScore,
    "product": ProductScore,
}


def butd_hengyuan(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    attention: Literal["product", "concatenation"] = "product",
    embedding_dim: int = 300,
    dim: int = 1024,
    classifier_dim: int = 2048,
    dropout: float = 0.2,
    classifier_dropout: float = 0.5,
    padding_id: int = 0,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """Bottom-up top-down attention (arXiv 1707.07998, 1708.02711) as implemented by hengyuan-hu.

    As `butd`, with a GRU, ReLU instead of ELU, and scores without separate projections::

        product:        a = softmax_r(w (relu(P v_r) * relu(P' q)))     `baseline0_newatt`, its default
        concatenation:  a = softmax_r(w relu(W [v_r; q]))               `baseline0`

    Published by its authors: 63.58 % on VQA v2 val with the product, about 62.80 % with the concatenation, trained on
    train with 36 regions per image. Deliberate differences: those of `butd`, and questions have no padding in front.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        attention: "product" or "concatenation".
        embedding_dim: width of word embeddings.
        dim: width of the question vector, of the attention's layer and of the product.
        classifier_dim: width inside the classifier.
        dropout: dropout in the attention (the original has none in its concatenation).
        classifier_dropout: dropout in the classifier.
        padding_id: the id of padding, whose word vector is zeros and is not trained: 0 in our vocabularies, the last
            id in the original's.
        faithful: show padding as the authors' code does: the GRU reads the padding in front of a question. With
            `padded_tokens`, padding on the right is moved to the front and extended to that length. Without it,
            questions must be padded in front with `padding_id`, as by the original's loader.
        padded_tokens: length to which `faithful` pads or cuts questions, 14 in the original; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.

    Raises:
        ValueError: unknown attention.
    """
    if attention not in SCORES:
        raise ValueError(f"attention must be one of {', '.join(SCORES)}, got {attention!r}")
    in_front = padded_tokens is not None
    model = VQAModel(
        RecurrentQuestionEncoder(
            num_words=num_words,
            question_dim=question_dim,
            embedding_dim=embedding_dim,
            dim=dim,
            cell="gru",
            padding_id=padding_id,
        ),
        region_encoder=PlainRegionEncoder(region_dim),
        coattention=TopDownAttention(SCORES[attention](dim, region_dim, hidden_dim=dim, dropout=dropout)),
        head=ProductHead(
            dim,
            region_dim,
            num_answers,
            joint_dim=dim,
            hidden_dim=classifier_dim,
            dropout=classifier_dropout,
        ),
    )
    if not faithful:
        return model
    return OriginalPadding(
        model,
        question=True,
        regions=True,
        num_tokens=padded_tokens,
        num_regions=padded_regions,
        front=in_front,
        padding_id=padding_id if in_front and num_words is not None else None,
    )
