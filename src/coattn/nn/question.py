"""Question encoders: token ids or given token embeddings in, token vectors and a summary out.

Letters: B batch, T tokens, E width of given embeddings, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import Dropout, masked_mean
from .recurrence import Recurrences


class Question(NamedTuple):
    """An encoded question.

    Attributes:
        tokens: (B, T, D), zeros at padding.
        levels: further views of the same tokens, each (B, T, D): word, phrase and sentence level where an encoder has
            them, else just `tokens`.
        summary: (B, D), the question as one vector; zeros for a question without tokens.
    """

    tokens: Tensor
    levels: tuple[Tensor, ...]
    summary: Tensor


class TokenEmbedding(nn.Module):
    """Token ids through an embedding table, or given token embeddings; zeros at padding.

    Args:
        num_words: size of the embedding table (ids 0 .. num_words - 1), for token ids.
        question_dim: width E of given token embeddings. Give exactly one of the two.
        dim: width of the output, to which given embeddings are mapped; None leaves them unchanged.
        dropout: dropout on the output.
        padding_id: the id whose word vector is zeros and is not trained; needed only where a model sees its padding.

    Raises:
        ValueError: both or none of `num_words` and `question_dim` are given, or `padding_id` is no id of a word.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        dim: int | None,
        dropout: float = 0.0,
        padding_id: int | None = None,
    ) -> None:
        super().__init__()
        if (num_words is None) == (question_dim is None):
            raise ValueError(
                "give either num_words (token ids) or question_dim (given token embeddings), "
                f"got num_words={num_words} and question_dim={question_dim}"
            )
        self.num_words, self.question_dim, self.dim = num_words, question_dim, dim
        self.embed: nn.Module
        if num_words is not None:
            assert dim is not None
            if padding_id is not None and not 0 <= padding_id < num_words:
                raise ValueError(f"padding_id must be one of the {num_words} ids, got {padding_id}")
            self.embed = nn.Embedding(num_words, dim, padding_idx=padding_id)
        else:
            assert question_dim is not None
            self.embed = nn.Identity() if dim is None else nn.Linear(question_dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, question: Tensor, mask: Tensor) -> Tensor:
        """Embed `question`, (B, T) int64 ids or (B, T, E) floats, where `mask` (B, T) is True -> (B, T, dim).

        Raises:
            ValueError: ids were given to a model of embeddings or the reverse, or the width E differs.
        """
        if self.num_words is not None:
            if question.dim() != 2 or question.is_floating_point():
                raise ValueError(f"expected token ids (B, T) int64, got {question.dtype} {tuple(question.shape)}")
            embedded = self.embed(question)
        else:
            if question.dim() != 3 or question.shape[-1] != self.question_dim:
                raise ValueError(
                    f"expected token embeddings (B, T, {self.question_dim}), got {question.dtype} "
                    f"{tuple(question.shape)}"
                )
            embedded = question if self.dim is None else self.embed(question.to(next(self.embed.parameters()).dtype))
        return self.dropout(embedded) * mask[:, :, None]


class PlainQuestionEncoder(nn.Module):
    """No recurrence: embedded tokens, optionally with learned positions. The summary is their mean.

    Use it for contextual embeddings (of a pretrained transformer) or, with `num_positions`, as the input of
    self-attention.

    Args:
        num_words: see `TokenEmbedding`.
        question_dim: see `TokenEmbedding`.
        dim: width D of the token vectors.
        num_positions: number of learned positions, the longest question; 0 for none.
        dropout: dropout on the embeddings.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        dim: int,
        num_positions: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_words, self.question_dim, self.dim = num_words, question_dim, dim
        self.num_positions, self.dropout = num_positions, dropout
        self.embedding = TokenEmbedding(num_words=num_words, question_dim=question_dim, dim=dim, dropout=dropout)
        self.positions = (
            nn.Parameter(nn.init.normal_(torch.empty(num_positions, dim), std=0.02)) if num_positions else None
        )

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode `question` (B, T) or (B, T, E) with its mask (B, T).

        Raises:
            ValueError: the question is longer than `num_positions`.
        """
        tokens = self.embedding(question, mask)  # (B, T, D)
        if self.positions is not None:
            if tokens.shape[1] > self.num_positions:
                raise ValueError(f"question of {tokens.shape[1]} tokens, but num_positions={self.num_positions}")
            tokens = (tokens + self.positions[: tokens.shape[1]]) * mask[:, :, None]
        return Question(tokens, (tokens,), masked_mean(tokens, mask))


class RecurrentQuestionEncoder(nn.Module):
    """LSTM or GRU over the tokens, in one or two directions, independent of padding; see `recurrence.Recurrences`.

    Args:
        num_words: see `TokenEmbedding`.
        question_dim: see `TokenEmbedding`; given embeddings enter the recurrence through a linear map to
            `embedding_dim`.
        embedding_dim: width of the embedded words.
        dim: width D of the token vectors; with two directions each gets half of it.
        cell: "lstm" or "gru".
        bidirectional: read the question in both directions.
        num_layers: number of recurrent layers.
        dropout: dropout on the embeddings and between and after the recurrent layers.
        padding_id: see `TokenEmbedding`.

    Raises:
        ValueError: unknown cell, or an odd `dim` with two directions.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        embedding_dim: int = 300,
        dim: int,
        cell: str = "lstm",
        bidirectional: bool = False,
        num_layers: int = 1,
        dropout: float = 0.0,
        padding_id: int | None = None,
    ) -> None:
        super().__init__()
        self.num_words, self.question_dim, self.embedding_dim, self.dim = num_words, question_dim, embedding_dim, dim
        self.cell, self.bidirectional, self.num_layers, self.dropout = cell, bidirectional, num_layers, dropout
        self.padding_id = padding_id
        self.embedding = TokenEmbedding(
            num_words=num_words,
            question_dim=question_dim,
            dim=embedding_dim,
            dropout=dropout,
            padding_id=padding_id,
        )
        self.recurrences = Recurrences(
            embedding_dim, dim, cell=cell, bidirectional=bidirectional, num_layers=num_layers, dropout=dropout
        )
        self.drop = Dropout(dropout)

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode `question` (B, T) or (B, T, E) with its mask (B, T), right-padded.

        The summary is the last state of each direction: at the last real token forwards, at the first backwards.
        """
        tokens, summary = self.recurrences(self.embedding(question, mask), mask)  # (B, T, D), (B, D)
        tokens = self.drop(tokens)
        return Question(tokens, (tokens,), self.drop(summary))
