"""What the decoders share: word ids, what they know of question and image, and attention to both sides.

Word ids: `PAD` fills up behind an answer, `BOS` begins it, `EOS` ends it, the words themselves follow. `PAD` and `BOS`
are never written: their logits are the lowest finite number.

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
from ..dropout import Dropout
from ..layers import masked_mean
from ..maps import Maps, name_maps
from ..question import Question

PAD, BOS, EOS = 0, 1, 2

# Tensors, all batch first, in tuples of tuples: what a decoder keeps between words.
State = tuple[Any, ...]


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The same nest of tuples with `function` applied to each tensor; named tuples stay what they are."""
    if isinstance(state, Tensor):
        return function(state)
    parts = [map_tensors(function, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


class Source(NamedTuple):
    """One side as the decoder reads it: keys and values (B, H, n, d), and the mask (B, n)."""

    k: Tensor
    v: Tensor
    mask: Tensor


class Memory(NamedTuple):
    """What a decoder knows of question and image, computed once for all words.

    Attributes:
        fixed: (B, D), both sides as one vector.
        sources: per layer, the two sides that can be attended to; empty without attention.
    """

    fixed: Tensor
    sources: tuple[tuple[Source, Source], ...]


class DecoderOutput(NamedTuple):
    """What a decoder returns.

    Attributes:
        logits: (B, S, V), place s scores the word after the s-th token that was given.
        state: to go on from the last of these tokens.
        maps: name -> attention map (B, H, S, from), empty unless asked for.
    """

    logits: Tensor
    state: State
    maps: Maps


class SideAttention(nn.Module):
    """Attention of the answer's words to the co-attended question and to the co-attended regions, added up.

    Args:
        dim: width D of the queries and of the context.
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

    def remember(
        self, attended: CoAttentionOutput, question_mask: Tensor, region_mask: Tensor
    ) -> tuple[Source, Source]:
        """Keys and values of both sides."""
        return (
            Source(*self.question.remember(attended.question), question_mask),
            Source(*self.regions.remember(attended.regions), region_mask),
        )

    def forward(self, queries: Tensor, sources: tuple[Source, Source], *, need_weights: bool) -> tuple[Tensor, Maps]:
        """Context (B, S, D) of each of the `queries` (B, S, D), and the maps `question` and `regions` if asked for."""
        words, question_map = self.question.read(queries, *sources[0], need_weights=need_weights)
        places, region_map = self.regions.read(queries, *sources[1], need_weights=need_weights)
        return words + places, name_maps(question=question_map, regions=region_map)


class AnswerDecoder(nn.Module, ABC):
    """What the decoders share: their sizes, word embeddings, the fixed vector, and the scores of the next word.

    Args:
        question_dim: width of the co-attended question tokens.
        region_dim: width of the co-attended regions.
        num_answer_words: number V of word ids, the three specials included.
        dim: width D.
        summary_dim: width of the question encoder's summary; `question_dim` when None.
        attention: "additive" (Bahdanau et al. 2014, arXiv 1409.0473) or "dot" (Luong et al. 2015, arXiv 1508.04025):
            each word attends anew, and has a context of its own. "none": all that is known of question and image is one
            fixed vector, the classical encoder-decoder (Sutskever et al. 2014, arXiv 1409.3215).
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
        nn.init.normal_(self.embed.weight[BOS:], std=dim**-0.5)  # no larger than what else a word is told
        width = (question_dim if summary_dim is None else summary_dim) + question_dim + region_dim
        self.fix = nn.Linear(width, dim)
        self.drop = Dropout(dropout)
        self.write = nn.Linear(dim, num_answer_words - EOS)

    def remember(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> Memory:
        """What is the same for every word of the answer.

        Args:
            attended: what the co-attention gave, sequences (B, T, question_dim) and (B, R, region_dim).
            question: what the question encoder gave; only its summary is used.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
        """
        means = masked_mean(attended.question, question_mask), masked_mean(attended.regions, region_mask)
        fixed = torch.tanh(self.fix(torch.cat((question.summary, *means), -1)))
        sources = [side.remember(attended, question_mask, region_mask) for side in self._side_attentions()]
        return Memory(fixed, tuple(sources))

    @abstractmethod
    def forward(
        self, tokens: Tensor, memory: Memory, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """Read some words of each answer and score what may follow each of them.

        Args:
            tokens: (B, S) int64, beginning with `BOS` or where `state` ended.
            memory: what `remember` gave.
            state: what an earlier call returned, to go on from there; empty at the beginning.
            need_weights: return the maps of the words to be written next; changes the logits by rounding only.
        """

    @abstractmethod
    def _side_attentions(self) -> list[SideAttention]:
        """The attention to question and image of each layer that has one."""

    def _side_attention(self) -> SideAttention | None:
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

    def _scores(self, x: Tensor) -> Tensor:
        """(B, S, D) to logits (B, S, V); no weights are kept for the two ids that are never written."""
        logits = self.write(self.drop(x))
        return F.pad(logits, (EOS, 0), value=torch.finfo(logits.dtype).min)
