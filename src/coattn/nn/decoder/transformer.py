"""The transformer decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from ..maps import DECODER, Maps, prefix_maps
from .base import AnswerDecoder, DecoderOutput, Memory, SideAttention, Source, State


class DecoderLayer(nn.Module):
    """Masked self-attention over the words so far, attention to both sides, feed-forward; see `TransformerDecoder`."""

    def __init__(
        self, dim: int, side_attention: SideAttention | None, *, num_heads: int, ffn_dim: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.read_itself = MultiHeadAttention(dim, num_heads=num_heads, dropout=dropout)
        self.self_residual = Residual(dim, dropout=dropout)
        self.look = side_attention
        self.look_residual = None if side_attention is None else Residual(dim, dropout=dropout)
        self.ffn = FeedForward(dim, ffn_dim=ffn_dim, dropout=dropout)

    def forward(
        self, x: Tensor, sources: tuple[Source, Source] | None, past: State, *, need_weights: bool
    ) -> tuple[Tensor, State, Maps]:
        """The words `x` (B, S, D), which follow the keys and values `past` (B, H, P, d) of earlier ones."""
        k, v = self.read_itself.remember(x)
        if past:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        num_new, num_all = x.shape[1], k.shape[2]
        causal = torch.ones(num_new, num_all, dtype=torch.bool, device=x.device).tril(num_all - num_new)
        x = self.self_residual(x, self.read_itself.read(x, k, v, causal[None, None])[0])
        maps: Maps = {}
        if self.look is not None and self.look_residual is not None and sources is not None:
            context, maps = self.look(x, sources, need_weights=need_weights)
            x = self.look_residual(x, context)
        return self.ffn(x), (k, v), maps


class TransformerDecoder(AnswerDecoder):
    """Transformer decoder (Vaswani et al. 2017, arXiv 1706.03762, section 3.1), with two sides to attend to.

    Each layer: masked self-attention over the words so far, attention to question and regions at once, feed-forward,
    each with residual and norm. Deliberate differences: the attentions to the two sides are added up; the fixed vector
    is added to every word, which is all that "none" knows of question and image.
    Maps of the last layer: `decoder.question` (B, H, S, T), `decoder.regions` (B, H, S, R); those of the earlier ones
    are `decoder.layers.<i>.question` and `decoder.layers.<i>.regions`.

    Args:
        question_dim: this and the next eight as in `AnswerDecoder`.
        region_dim: width of the co-attended regions.
        num_answer_words: number V of word ids.
        dim: width D.
        summary_dim: width of the question encoder's summary.
        attention: "additive", "dot" or "none".
        num_heads: attention heads, to the sides and among the words.
        num_layers: layers.
        dropout: dropout throughout.
        ffn_dim: inner width of feed-forward steps; `4 * dim` when None.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answer_words: int,
        *,
        dim: int,
        summary_dim: int | None = None,
        attention: str = "dot",
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.0,
        ffn_dim: int | None = None,
    ) -> None:
        super().__init__(
            question_dim,
            region_dim,
            num_answer_words,
            dim=dim,
            summary_dim=summary_dim,
            attention=attention,
            num_heads=num_heads,
            num_layers=num_layers,
            dropout=dropout,
        )
        self.ffn_dim = ffn_dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, self._side_attention(), num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
            for _ in range(num_layers)
        )

    def forward(
        self, tokens: Tensor, memory: Memory, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """See `AnswerDecoder.forward`."""
        num_past = state[0][0].shape[2] if state else 0
        places = torch.arange(num_past, num_past + tokens.shape[1], device=tokens.device)
        x = self.embed(tokens) * math.sqrt(self.dim)
        x = self.drop(x + sinusoids(places, self.dim).to(x.dtype) + memory.fixed[:, None])
        maps: Maps = {}
        kept = []
        for number, layer in enumerate(self.layers):
            sources = memory.sources[number] if memory.sources else None
            x, past, found = layer(x, sources, state[number] if state else (), need_weights=need_weights)
            kept.append(past)
            maps |= prefix_maps(DECODER if number == self.num_layers - 1 else f"{DECODER}.layers.{number}", found)
        return DecoderOutput(self._scores(x), tuple(kept), maps)

    def _side_attentions(self) -> list[SideAttention]:
        return [layer.look for layer in self.layers if layer.look is not None]  # type: ignore[misc,union-attr]


def sinusoids(places: Tensor, dim: int) -> Tensor:
    """Sines and cosines of places (S,) -> (S, dim) (Vaswani et al. 2017, section 3.5, first all the sines)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=places.device) * (-math.log(10_000.0) / dim))
    angles = places[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), -1)[:, :dim]
