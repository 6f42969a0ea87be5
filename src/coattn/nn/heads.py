"""Heads: the two attended sides to scores over an answer vocabulary.

Letters: B batch, T tokens, R regions, G glimpses, A answers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .coattention import CoAttentionOutput
from .layers import AttentionPooling, Dropout, make_norm
from .maps import POOLING, Maps, name_maps
from .question import Question


class HeadOutput(NamedTuple):
    """The output of a head.

    Attributes:
        logits: (B, A).
        maps: name -> pooling map (B, G, 1, from).
    """

    logits: Tensor
    maps: Maps


class SumFusion(nn.Module):
    """`q + v`, MCAN's linear fusion before its norm (arXiv 1906.10770, "Multimodal Fusion and Output Classifier")."""

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
    """Pool each side by attention, fuse, normalize, classify.

    With MCAN's numbers (`fusion="sum"`, `norm="unbiased"`) this is that paper's "Multimodal Fusion and Output
    Classifier" (arXiv 1906.10770).

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
        norm: name of the norm of the fused vector, see `layers.make_norm`.
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
            attended: the output of the co-attention, sequences (B, T, question_dim) and (B, R, region_dim).
            question: the output of the question encoder; its summary is used with `summary_dim` only.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.

        Returns:
            Logits (B, A), and the maps `pooling.question` (B, G, 1, T) and `pooling.regions` (B, G, 1, R).
        """
        # Pool each side to one vector (B, joint_dim).
        q, question_map = self.question_pooling(attended.question, question_mask)
        v, region_map = self.region_pooling(attended.regions, region_mask)
        if self.summary is not None:
            q = q + self.summary(question.summary)
        # Fuse and classify.
        logits = self.classify(self.drop(self.normalize(self.fuse(q, v))))
        return HeadOutput(logits, name_maps(POOLING, question=question_map, regions=region_map))
