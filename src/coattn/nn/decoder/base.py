"""Parts that the decoders share: word ids, the context of an answer, and attention to question and regions.

Word ids: `PAD` fills up after an answer, `BOS` begins it, `EOS` ends it, and the words follow. `PAD` and `BOS` are
never generated: their logits are the lowest finite number.

Letters: B batch, S words of the answer, T question tokens, R regions, H heads, D decoder width, V word ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import ATTENTIONS
from ..coattention import CoAttentionOutput
from ..layers import Dropout, masked_mean
from ..maps import Maps, name_maps
from ..question import Question

PAD, BOS, EOS = 0, 1, 2

# Tensors, all batch first, in nested tuples: the cache of a decoder, from which it continues an answer.
State = tuple[Any, ...]


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply `function` to each tensor of nested tuples and keep the nesting; named tuples keep their types."""
    if isinstance(state, Tensor):
        return function(state)
    parts = [map_tensors(function, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


class SideCache(NamedTuple):
    """Keys and values (B, H, n, d) of one side, question or regions, and its mask (B, n)."""

    k: Tensor
    v: Tensor
    mask: Tensor


class Context(NamedTuple):
    """The question and the image as a decoder reads them, computed once for all words of an answer.

    Attributes:
        vector: (B, D), both sides as one vector.
        sides: per layer that attends to the sides, the question's cache and the regions' cache; empty without
            attention.
    """

    vector: Tensor
    sides: tuple[tuple[SideCache, SideCache], ...]


class DecoderOutput(NamedTuple):
    """The output of a decoder.

    Attributes:
        logits: (B, S, V); place s scores the word after the s-th given token.
        state: the cache from which the next call continues after the last given token.
        maps: name -> attention map (B, H, S, from), empty unless asked for.
    """

    logits: Tensor
    state: State
    maps: Maps


class SideAttention(nn.Module):
    """Attention of the answer's words to the co-attended question and to the co-attended regions, summed.

    Args:
        dim: width D of the queries and of the output.
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        attention: "additive" or "dot", see `attention.ATTENTIONS`.
        num_heads: attention heads.
        dropout: dropout on the attention weights.
    """

    def __init__(
        self, dim: int, question_dim: int, region_dim: int, *, attention: str, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        kind = ATTENTIONS[attention]
        self.question = kind(dim, key_dim=question_dim, num_heads=num_heads, dropout=dropout)
        self.regions = kind(dim, key_dim=region_dim, num_heads=num_heads, dropout=dropout)

    def cache(
        self, attended: CoAttentionOutput, question_mask: Tensor, region_mask: Tensor
    ) -> tuple[SideCache, SideCache]:
        """Keys and values of both sides."""
        return (
            SideCache(*self.question.project_kv(attended.question), question_mask),
            SideCache(*self.regions.project_kv(attended.regions), region_mask),
        )

    def forward(
        self, queries: Tensor, sides: tuple[SideCache, SideCache], *, need_weights: bool
    ) -> tuple[Tensor, Maps]:
        """Attend from `queries` (B, S, D) -> (B, S, D), and the maps `question` and `regions` if asked for."""
        # Each side has its own queries (B, H, S, d).
        q = self.question.project_q(queries)
        from_question, question_map = self.question.attend_to(q, *sides[0], need_weights=need_weights)
        q = self.regions.project_q(queries)
        from_regions, region_map = self.regions.attend_to(q, *sides[1], need_weights=need_weights)
        return from_question + from_regions, name_maps(question=question_map, regions=region_map)


class AnswerDecoder(nn.Module, ABC):
    """Base of the decoders: their sizes, word embeddings, the context vector, and the scores of the next word.

    Args:
        question_dim: width of the co-attended question tokens.
        region_dim: width of the co-attended regions.
        num_answer_words: number V of word ids, the three specials included.
        dim: width D.
        summary_dim: width of the question encoder's summary; `question_dim` when None.
        attention: "additive" (Bahdanau et al. 2014, arXiv 1409.0473) or "dot" (Luong et al. 2015, arXiv 1508.04025):
            each word attends to question and regions. "none": the context vector is all that the decoder reads, the
            classical encoder-decoder (Sutskever et al. 2014, arXiv 1409.3215).
        num_heads: attention heads; must divide `dim`.
        num_layers: layers.
        dropout: dropout throughout.

    Raises:
        ValueError: unknown attention, or `num_heads` does not divide `dim`.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answer_words: int,
        *,
        dim: int,
        summary_dim: int | None = None,
        attention: str = "additive",
        num_heads: int = 1,
        num_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention not in (*ATTENTIONS, "none"):
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, none, got {attention!r}")
        self.question_dim, self.region_dim, self.num_answer_words = question_dim, region_dim, num_answer_words
        self.dim, self.summary_dim, self.attention = dim, summary_dim, attention
        self.num_heads, self.num_layers, self.dropout = num_heads, num_layers, dropout
        self.embed = nn.Embedding(num_answer_words, dim, padding_idx=PAD)
        nn.init.normal_(self.embed.weight[BOS:], std=dim**-0.5)  # same scale as the context vectors
        joint_dim = (question_dim if summary_dim is None else summary_dim) + question_dim + region_dim
        self.context_proj = nn.Linear(joint_dim, dim)
        self.drop = Dropout(dropout)
        self.classify = nn.Linear(dim, num_answer_words - EOS)

    def context(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> Context:
        """Compute everything that is the same for every word of the answer.

        Args:
            attended: the output of the co-attention, sequences (B, T, question_dim) and (B, R, region_dim).
            question: the output of the question encoder; only its summary is used.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
        """
        means = masked_mean(attended.question, question_mask), masked_mean(attended.regions, region_mask)
        vector = torch.tanh(self.context_proj(torch.cat((question.summary, *means), -1)))  # (B, D)
        sides = [attention.cache(attended, question_mask, region_mask) for attention in self.side_attentions()]
        return Context(vector, tuple(sides))

    @abstractmethod
    def start(self, context: Context) -> State:
        """The state before the first word: an explicit form of the empty state."""

    @abstractmethod
    def forward(
        self, tokens: Tensor, context: Context, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """Read some words of each answer and score the word after each of them.

        Args:
            tokens: (B, S) int64, from `BOS` on, or from where `state` ended.
            context: the output of `context`.
            state: the state of an earlier call, to continue from there; empty at the beginning.
            need_weights: return the maps of the next words too; changes the logits by rounding only.
        """

    @abstractmethod
    def side_attentions(self) -> list[SideAttention]:
        """The attention to question and regions of each layer that has one."""

    def make_side_attention(self) -> SideAttention | None:
        """A new attention to question and regions; None for `attention="none"`."""
        if self.attention == "none":
            return None
        return SideAttention(
            self.dim,
            self.question_dim,
            self.region_dim,
            attention=self.attention,
            num_heads=self.num_heads,
            dropout=self.dropout,
        )

    def word_logits(self, x: Tensor) -> Tensor:
        """(B, S, D) -> logits (B, S, V); the two ids that are never generated have no weights."""
        logits = self.classify(self.drop(x))  # (B, S, V - EOS)
        return F.pad(logits, (EOS, 0), value=torch.finfo(logits.dtype).min)
