"""Bilinear attention networks (Kim et al. 2018, arXiv 1805.07932)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coattn.nn import PlainRegionEncoder, RecurrentQuestionEncoder, VQAModel
from coattn.nn.attention import masked_softmax
from coattn.nn.coattention import CoAttentionOutput
from coattn.nn.heads import HeadOutput
from coattn.nn.layers import Dropout
from coattn.nn.maps import POOLING, name_maps
from coattn.nn.question import Question

from .original_padding import OriginalPadding
from .weight_norm import WeightNormClassifier, WeightNormLinear


class BilinearMap(nn.Module):
    """`p_g . (f(q) * f'(v))` for every pair of a word and a region: G maps of logits from one rank-K bilinear form.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: rank K of the bilinear form.
        num_glimpses: maps G.
        dropout: dropout on the inputs.
        hidden_dropout: dropout on the regions' side of the product.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        hidden_dim: int,
        num_glimpses: int,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question = WeightNormLinear(question_dim, hidden_dim, activation="relu", dropout=dropout)
        self.regions = WeightNormLinear(region_dim, hidden_dim, activation="relu", dropout=dropout)
        self.drop = Dropout(hidden_dropout)
        self.weight_v = nn.Parameter(torch.randn(num_glimpses, hidden_dim))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm())
        self.bias = nn.Parameter(torch.randn(num_glimpses))

    def forward(self, question: Tensor, regions: Tensor) -> Tensor:
        """Logits (B, G, T, R) of question (B, T, question_dim) and regions (B, R, region_dim)."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm())  # (G, K)
        q, v = self.question(question), self.drop(self.regions(regions))  # (B, T, K), (B, R, K)
        # (B, G, T, K) @ (B, 1, K, R) -> (B, G, T, R)
        return (q[:, None] * weight[:, None]) @ v.transpose(1, 2)[:, None] + self.bias[:, None, None]


class BilinearPooling(nn.Module):
    """`sum_tr a_tr f(q_t) * f'(v_r)`, summed over groups of the hidden units: the pooling of one map.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: rank K of the bilinear form.
        output_dim: width of the pooled vector; a divisor of K.
        dropout: dropout on the inputs.
    """

    def __init__(
        self, question_dim: int, region_dim: int, *, hidden_dim: int, output_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.question = WeightNormLinear(question_dim, hidden_dim, activation="relu", dropout=dropout)
        self.regions = WeightNormLinear(region_dim, hidden_dim, activation="relu", dropout=dropout)

    def forward(self, question: Tensor, regions: Tensor, weights: Tensor) -> Tensor:
        """Pool (B, T, question_dim) and (B, R, region_dim) by `weights` (B, T, R) -> (B, output_dim)."""
        attended = weights @ self.regions(regions)  # (B, T, K)
        joint = (self.question(question) * attended).sum(1)  # (B, K)
        return joint.unflatten(-1, (self.output_dim, -1)).sum(-1)


class BilinearAttention(nn.Module):
    """Bilinear attention with residual glimpses (Kim et al. 2018): all maps at once, then one pooling after another.

    `A_g = softmax_tr(p_g . (f(q_t) * f'(v_r)))` over *all pairs* of words and regions together; then for each glimpse
    the question adds the pooled vector: `q_t <- P_g(sum_tr A_g,tr f_g(q_t) * f'_g(v_r)) + q_t`, the same for all t.

    Deliberate differences: an empty question or image pools to zeros in every glimpse (the authors' code returns NaN
    for an empty image), and words at padding are masked.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: rank K of the bilinear forms; a multiple of `question_dim`, three times in the released models.
        num_glimpses: glimpses G.
        dropout: dropout on the inputs of every map.
        attention_dropout: dropout inside the attention's logits.

    Raises:
        ValueError: `hidden_dim` is not a multiple of `question_dim`.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        hidden_dim: int,
        num_glimpses: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_dim % question_dim:
            raise ValueError(f"hidden_dim must be a multiple of question_dim, got {hidden_dim} and {question_dim}")
        self.question_dim, self.region_dim = question_dim, region_dim
        self.hidden_dim, self.num_glimpses = hidden_dim, num_glimpses
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.logits = BilinearMap(
            question_dim,
            region_dim,
            hidden_dim=hidden_dim,
            num_glimpses=num_glimpses,
            dropout=dropout,
            hidden_dropout=attention_dropout,
        )
        self.pool = nn.ModuleList(
            BilinearPooling(question_dim, region_dim, hidden_dim=hidden_dim, output_dim=question_dim, dropout=dropout)
            for _ in range(num_glimpses)
        )
        self.project = nn.ModuleList(
            WeightNormLinear(question_dim, question_dim, dropout=dropout) for _ in range(num_glimpses)
        )

    def forward(
        self,
        question: Question,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Add the pooled vector of each glimpse to the tokens of `question`, (B, T, question_dim).

        Maps: `glimpses.question_to_regions` (B, G, T, R). The softmax runs over words *and* regions, so that a whole
        map sums to 1 and not each row. The sums of its rows and columns are `pooling.question` (B, G, 1, T), the share
        of each word, and `pooling.regions` (B, G, 1, R), the share of each region.
        """
        tokens, regions = question.tokens, regions.to(question.tokens.dtype)
        # One softmax over all real pairs of a word and a region.
        pairs = question_mask[:, :, None] & region_mask[:, None]  # (B, T, R)
        logits = self.logits(tokens, regions)  # (B, G, T, R)
        weights = masked_softmax(logits.flatten(2), pairs.flatten(1)[:, None]).view_as(logits)  # (B, G, T, R)
        # Each glimpse pools with the tokens that the glimpses before it have updated.
        for glimpse, (pool, project) in enumerate(zip(self.pool, self.project, strict=True)):
            tokens = tokens + project(pool(tokens, regions, weights[:, glimpse]))[:, None]
        maps = name_maps("glimpses", question_to_regions=weights)
        maps |= name_maps(POOLING, question=weights.sum(3)[:, :, None], regions=weights.sum(2)[:, :, None])
        return CoAttentionOutput(tokens, regions, (), maps if need_weights else {})


class TokenSumHead(nn.Module):
    """`classify(sum_t q_t)`: sum the question tokens, which contain the image's glimpses, and classify.

    Args:
        question_dim: width of the question tokens.
        num_answers: size A of the answer vocabulary.
        hidden_dim: width inside the classifier.
        dropout: dropout inside the classifier.
    """

    def __init__(self, question_dim: int, num_answers: int, *, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.question_dim, self.num_answers = question_dim, num_answers
        self.hidden_dim, self.dropout = hidden_dim, dropout
        self.classify = WeightNormClassifier(
            question_dim, hidden_dim=hidden_dim, num_answers=num_answers, dropout=dropout
        )

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers, logits (B, A), from the tokens of `attended` (B, T, question_dim)."""
        return HeadOutput(self.classify((attended.question * question_mask[:, :, None]).sum(1)), {})


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
    standardized: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """BAN (Kim et al. 2018, arXiv 1805.07932) as implemented by openvqa, with the numbers of its *BAN-8*.

    A GRU over the word vectors, bilinear attention over all pairs of a word and a raw region feature with residual
    glimpses, the sum over the words, and a classifier. Every linear map is weight-normalized. Equations:
    `BilinearAttention`.
    Published by openvqa: 66.00 % on VQA v2 val with 8 glimpses and 65.86 % with 4, trained on train; 69.48 % and
    69.31 % on test-dev, trained on train+val+vg. (The authors report 70.04 % on test-dev with a counting module, which
    this model lacks.) Deliberate differences: words at padding get no attention and are left out of the sum, an empty
    image pools to zeros (the original returns NaN), and the dropout before the last map is not in place.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        dim: width of the question tokens.
        hidden_dim: rank of the bilinear forms, a multiple of `dim`; `3 * dim` when None. (openvqa computes it before
            it reads `dim` from the settings file, so that its model fails if that file changes `dim`.)
        num_glimpses: glimpses.
        classifier_dim: width inside the classifier.
        dropout: dropout on the inputs of the bilinear maps.
        classifier_dropout: dropout in the classifier, and inside the attention's logits.
        standardized: z-score region features with statistics of the training images; the original does not.
        faithful: show padding as the authors' code does: words at padding are not masked, an empty image returns NaN.
        padded_tokens: length to which `faithful` pads or cuts questions; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.

    Raises:
        ValueError: `hidden_dim` is not a multiple of `dim`.
    """
    model = VQAModel(
        RecurrentQuestionEncoder(
            num_words=num_words, question_dim=question_dim, embedding_dim=embedding_dim, dim=dim, cell="gru"
        ),
        region_encoder=PlainRegionEncoder(region_dim, standardized=standardized),
        coattention=BilinearAttention(
            dim,
            region_dim,
            hidden_dim=3 * dim if hidden_dim is None else hidden_dim,
            num_glimpses=num_glimpses,
            dropout=dropout,
            attention_dropout=classifier_dropout,
        ),
        head=TokenSumHead(dim, num_answers, hidden_dim=classifier_dim, dropout=classifier_dropout),
    )
    if not faithful:
        return model
    return OriginalPadding(model, question=True, empty="nan", num_tokens=padded_tokens, num_regions=padded_regions)
