"""Heads: the two attended sides to scores over an answer vocabulary.

Letters: B batch, T tokens, R regions, G glimpses, A answers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .coattention import CoAttentionOutput
from .layers import MLP, AttentionPooling, Dropout, GlimpsePooling, make_norm
from .maps import POOLING, Maps, name_maps
from .question import Question


class HeadOutput(NamedTuple):
    """What a head returns.

    Attributes:
        logits: (B, A).
        maps: name -> pooling map (B, G, 1, from).
    """

    logits: Tensor
    maps: Maps


class SumFusion(nn.Module):
    """`q + v`, MCAN's fusion (arXiv 1906.10770, eq. 11 before its norm)."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, question: Tensor, image: Tensor) -> Tensor:
        """Fuse two vectors (B, dim)."""
        return question + image


class ProductFusion(nn.Module):
    """`q * v`, element by element."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, question: Tensor, image: Tensor) -> Tensor:
        """Fuse two vectors (B, dim)."""
        return question * image


class GatedFusion(nn.Module):
    """`q * (1 + tanh(F v)) + G v`: the image scales and shifts the question, whose own path stays direct."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Linear(dim, dim)
        self.shift = nn.Linear(dim, dim)

    def forward(self, question: Tensor, image: Tensor) -> Tensor:
        """Fuse two vectors (B, dim)."""
        return question * (1 + torch.tanh(self.scale(image))) + self.shift(image)


FUSIONS: dict[str, type[nn.Module]] = {"sum": SumFusion, "product": ProductFusion, "gated": GatedFusion}


class ClassifierHead(nn.Module):
    """Pool each side by attention, fuse, normalise, classify.

    With MCAN's numbers (`fusion="sum"`, `norm="unbiased"`) this is that paper's head (arXiv 1906.10770, eq. 9-11).

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_answers: size A of the answer vocabulary.
        pooling_dim: inner width of the attention poolings' MLPs.
        joint_dim: width in which the sides are fused.
        num_glimpses: attention maps G per side.
        summary_dim: width of the question encoder's summary when it joins the pooled question (a direct path around
            the co-attention); None leaves it out.
        fusion: "sum", "product" or "gated".
        norm: name of the normalisation of the fused vector, see `layers.make_norm`.
        dropout: dropout in the poolings' MLPs.
        joint_dropout: dropout on the fused vector.

    Raises:
        ValueError: unknown fusion or norm.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answers: int,
        *,
        pooling_dim: int,
        joint_dim: int,
        num_glimpses: int = 1,
        summary_dim: int | None = None,
        fusion: str = "sum",
        norm: str = "layer",
        dropout: float = 0.0,
        joint_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.pooling_dim, self.joint_dim, self.num_glimpses = pooling_dim, joint_dim, num_glimpses
        self.summary_dim, self.fusion, self.norm = summary_dim, fusion, norm
        self.dropout, self.joint_dropout = dropout, joint_dropout
        self.question_pooling = AttentionPooling(
            question_dim, hidden_dim=pooling_dim, output_dim=joint_dim, num_glimpses=num_glimpses, dropout=dropout
        )
        self.region_pooling = AttentionPooling(
            region_dim, hidden_dim=pooling_dim, output_dim=joint_dim, num_glimpses=num_glimpses, dropout=dropout
        )
        self.summary = None if summary_dim is None else nn.Linear(summary_dim, joint_dim)
        self.fuse = FUSIONS[fusion](joint_dim)
        self.normalize = make_norm(norm, joint_dim)
        self.drop = Dropout(joint_dropout)
        self.classify = nn.Linear(joint_dim, num_answers)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers.

        Args:
            attended: what the co-attention gave, sequences (B, T, question_dim) and (B, R, region_dim).
            question: what the question encoder gave; its summary is used with `summary_dim` only.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.

        Returns:
            Logits (B, A), and the maps `pooling.question` (B, G, 1, T) and `pooling.regions` (B, G, 1, R).
        """
        q, question_map = self.question_pooling(attended.question, question_mask)
        v, region_map = self.region_pooling(attended.regions, region_mask)
        if self.summary is not None:
            q = q + self.summary(question.summary)
        logits = self.classify(self.drop(self.normalize(self.fuse(q, v))))
        return HeadOutput(logits, name_maps(POOLING, question=question_map, regions=region_map))


class SummaryHead(nn.Module):
    """Pool each side by the mean of several attentions, concatenate, MLP: DCN's prediction layer (arXiv 1804.00775).

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_answers: size A of the answer vocabulary.
        hidden_dim: inner width of the classifying MLP; half of both sides together when None.
        num_glimpses: attention maps G per side.
        dropout: dropout inside the classifying MLP.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answers: int,
        *,
        hidden_dim: int | None = None,
        num_glimpses: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.hidden_dim, self.num_glimpses, self.dropout = hidden_dim, num_glimpses, dropout
        self.question_pooling, self.region_pooling = (
            GlimpsePooling(width, hidden_dim=width, num_glimpses=num_glimpses) for width in (question_dim, region_dim)
        )
        joint_dim = question_dim + region_dim
        hidden_dim = joint_dim // 2 if hidden_dim is None else hidden_dim
        self.classify = MLP(joint_dim, hidden_dim=hidden_dim, output_dim=num_answers, dropout=dropout)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers; arguments and maps as `ClassifierHead.forward`."""
        q, question_map = self.question_pooling(attended.question, question_mask)
        v, region_map = self.region_pooling(attended.regions, region_mask)
        q, v = (glimpses.unflatten(1, (self.num_glimpses, -1)).mean(1) for glimpses in (q, v))
        logits = self.classify(torch.cat((v, q), -1))
        return HeadOutput(logits, name_maps(POOLING, question=question_map, regions=region_map))


class RecursiveHead(nn.Module):
    """Answer from several levels, each joined to what the levels before it gave (Lu et al. 2016, eq. 7).

    With the pair (q_l, v_l) of each level, word, phrase and question in HieCoAtt (arXiv 1606.00061)::

        h_1 = tanh(W_1 (q_1 + v_1)),  h_l = tanh(W_l [q_l + v_l, h_{l-1}]),  logits = W h_L

    Args:
        dim: width of the vectors of each pair.
        num_answers: size A of the answer vocabulary.
        hidden_dim: width of h_l before the last level.
        joint_dim: width of h_L.
        num_levels: number of levels L.
        dropout: dropout before each linear map.
    """

    def __init__(
        self, dim: int, num_answers: int, *, hidden_dim: int, joint_dim: int, num_levels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim, self.num_answers, self.hidden_dim, self.joint_dim = dim, num_answers, hidden_dim, joint_dim
        self.num_levels, self.dropout = num_levels, dropout
        widths = [hidden_dim] * (num_levels - 1) + [joint_dim]
        self.levels = nn.ModuleList(
            nn.Linear(dim + (widths[level - 1] if level else 0), width) for level, width in enumerate(widths)
        )
        self.drop = Dropout(dropout)
        self.classify = nn.Linear(joint_dim, num_answers)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers from `attended.pooled`: logits (B, A), no maps. See `ClassifierHead.forward`.

        Raises:
            ValueError: the co-attention gives another number of pairs.
        """
        if len(attended.pooled) != self.num_levels:
            raise ValueError(f"this head reads {self.num_levels} pooled pairs, got {len(attended.pooled)}")
        hidden: list[Tensor] = []
        for level, (q, v) in zip(self.levels, attended.pooled, strict=True):
            hidden = [level(self.drop(torch.cat((q + v, *hidden), -1))).tanh()]
        return HeadOutput(self.classify(self.drop(hidden[0])), {})
