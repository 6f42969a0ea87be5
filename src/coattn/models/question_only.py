"""The question-only baseline: the gain of another model over it comes from the image.

Letters: B batch, T question tokens, R regions, D model width, A answers.
"""

from __future__ import annotations

from torch import Tensor, nn

from coattn.nn import CoAttentionStack, QuestionSelfAttention, VQAModel
from coattn.nn.coattention import CoAttentionOutput
from coattn.nn.heads import HeadOutput
from coattn.nn.layers import AttentionPooling, Dropout, make_norm
from coattn.nn.maps import POOLING, name_maps
from coattn.nn.question import Question

from .stacks import make_question_encoder


class UnseenRegions(nn.Module):
    """Replaces a region encoder: returns zeros for any features, without parameters.

    Args:
        region_dim: width D_in of the features, which are not used.
        dim: width D of the zero tokens.
    """

    standardized = False

    def __init__(self, region_dim: int, *, dim: int) -> None:
        super().__init__()
        self.region_dim, self.dim = region_dim, dim

    def forward(
        self, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, image_sizes: Tensor | None = None
    ) -> Tensor:
        """Features (B, R, D_in) -> zeros (B, R, D)."""
        return regions.new_zeros((*mask.shape, self.dim))


class QuestionOnlyHead(nn.Module):
    """Pool the question by attention, normalize, classify; the regions are not used.

    Args:
        question_dim: width of the question tokens.
        num_answers: size A of the answer vocabulary.
        pooling_dim: inner width of the attention pooling's MLP.
        joint_dim: width of the pooled vector.
        summary_dim: width of the question encoder's summary when it joins the pooled question; None leaves it out.
        norm: name of the norm of the pooled vector, see `layers.make_norm`.
        dropout: dropout in the pooling's MLP.
        joint_dropout: dropout on the pooled vector.
    """

    def __init__(
        self,
        question_dim: int,
        num_answers: int,
        *,
        pooling_dim: int,
        joint_dim: int,
        summary_dim: int | None = None,
        norm: str = "layer",
        dropout: float = 0.0,
        joint_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.num_answers = question_dim, num_answers
        self.pooling_dim, self.joint_dim, self.summary_dim, self.norm = pooling_dim, joint_dim, summary_dim, norm
        self.dropout, self.joint_dropout = dropout, joint_dropout
        self.question_pooling = AttentionPooling(
            question_dim, hidden_dim=pooling_dim, output_dim=joint_dim, dropout=dropout
        )
        self.summary = None if summary_dim is None else nn.Linear(summary_dim, joint_dim)
        self.normalize = make_norm(norm, joint_dim)
        self.drop = Dropout(joint_dropout)
        self.classify = nn.Linear(joint_dim, num_answers)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers: logits (B, A) and the map `pooling.question` (B, 1, 1, T)."""
        q, question_map = self.question_pooling(attended.question, question_mask)  # (B, joint_dim)
        if self.summary is not None:
            q = q + self.summary(question.summary)
        logits = self.classify(self.drop(self.normalize(q)))
        return HeadOutput(logits, name_maps(POOLING, question=question_map))


def question_only(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    num_layers: int = 2,
    dim: int = 256,
    num_heads: int = 4,
    ffn_dim: int | None = None,
    dropout: float = 0.1,
    question_encoder: str = "lstm",
    embedding_dim: int = 300,
    bidirectional: bool = False,
    recurrent_layers: int = 1,
    question_positions: int = 0,
    direct_question: bool = False,
    joint_dropout: float = 0.0,
) -> VQAModel:
    """The question-only baseline: `stack` without the image. Self-attention over the question, pooling, classifier.

    Args:
        region_dim: width of the region features, which are not used.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        num_layers: number of self-attention layers.
        dim: model width.
        num_heads: attention heads per layer.
        ffn_dim: inner width of feed-forward steps; `4 * dim` when None.
        dropout: dropout throughout.
        question_encoder: "lstm", "gru" or "none".
        embedding_dim: width of word embeddings under a recurrence.
        bidirectional: recurrence in both directions.
        recurrent_layers: layers of the recurrence.
        question_positions: learned positions when `question_encoder` is "none"; 0 for none.
        direct_question: the question encoder's summary joins the pooled question.
        joint_dropout: dropout on the pooled vector.

    Raises:
        ValueError: unknown names, or sizes that do not fit together.
    """
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
        region_encoder=UnseenRegions(region_dim, dim=dim),
        coattention=CoAttentionStack(
            [
                QuestionSelfAttention(dim, dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
                for _ in range(num_layers)
            ]
        ),
        head=QuestionOnlyHead(
            dim,
            num_answers,
            pooling_dim=dim,
            joint_dim=2 * dim,
            summary_dim=dim if direct_question else None,
            dropout=dropout,
            joint_dropout=joint_dropout,
        ),
    )
