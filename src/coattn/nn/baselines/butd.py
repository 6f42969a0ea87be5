"""Bottom-up top-down attention: the question picks regions once, and its product with what they hold is classified.

Anderson et al. 2018 (arXiv 1707.07998), Teney et al. 2018 (arXiv 1708.02711). Letters: B batch, T tokens, R regions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import masked_softmax
from ..coattention import CoAttentionOutput
from ..heads import HeadOutput
from ..question import Question
from .weight_norm import WeightNormClassifier, WeightNormLinear


class ConcatenationScore(nn.Module):
    """`w f([v; q])`: regions scored by a layer over their concatenation with the question.

    Difference from the papers (arXiv 1707.07998, 1708.02711), in both well-known implementations: weight-normalised
    maps, and ReLU or ELU where the papers have a gated tanh.

    Args:
        question_dim: width of the question vector.
        region_dim: width of the regions.
        hidden_dim: width of the layer.
        projected: give each side a linear map of its own width first (openvqa).
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
        q = self.question(question)[:, None].expand(-1, regions.shape[1], -1)
        return self.output(self.hidden(torch.cat((self.regions(regions), q), -1))).squeeze(-1)


class ProductScore(nn.Module):
    """`w (f(v) * g(q))`: regions scored by their product with the question, hengyuan-hu's "new attention".

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

    The question is not attended to: the co-attention models are to be compared with that.

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
        """Pool `regions` (B, R, region_dim): the pair of the question's summary and the attended regions.

        Map: `pooling.regions` (B, 1, 1, R).
        """
        regions = regions.to(question.summary.dtype)
        weights = masked_softmax(self.score(question.summary, regions), region_mask)[:, None]  # (B, 1, R)
        attended = (weights @ regions).squeeze(1)
        maps = {"pooling.regions": weights[:, None]} if need_weights else {}
        return CoAttentionOutput(question.tokens, regions, ((question.summary, attended),), maps)


class ProductHead(nn.Module):
    """`classify(f(q) * g(v))`: the two pooled vectors to one width, their product, the classifier.

    Args:
        question_dim: width of the pooled question.
        region_dim: width of the pooled regions.
        num_answers: size A of the answer vocabulary.
        joint_dim: width of the product.
        hidden_dim: width inside the classifier.
        activation: of the two maps, see `WeightNormLinear`.
        dropout: dropout inside the classifier.
        inplace_dropout: see `WeightNormClassifier`.
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
        inplace_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.joint_dim, self.hidden_dim, self.activation = joint_dim, hidden_dim, activation
        self.dropout, self.inplace_dropout = dropout, inplace_dropout
        self.question = WeightNormLinear(question_dim, joint_dim, activation=activation)
        self.regions = WeightNormLinear(region_dim, joint_dim, activation=activation)
        self.classify = WeightNormClassifier(
            joint_dim,
            hidden_dim=hidden_dim,
            num_answers=num_answers,
            dropout=dropout,
            inplace_dropout=inplace_dropout,
        )

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers, logits (B, A), from the one pooled pair of `attended`."""
        ((pooled_question, pooled_regions),) = attended.pooled
        return HeadOutput(self.classify(self.question(pooled_question) * self.regions(pooled_regions)), {})
