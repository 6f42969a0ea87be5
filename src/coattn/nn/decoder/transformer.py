"""The transformer decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layers import FeedForward, Residual
from ..maps import DECODER, Maps, prefix_maps
from .base import AnswerDecoder, Context, DecoderOutput, SideAttention, SideCache, State


class DecoderLayer(nn.Module):
    """Masked self-attention over the words so far, attention to both sides, feed-forward; see `TransformerDecoder`."""

    def __init__(
        self, dim: int, side_attention: SideAttention | None, *, num_heads: int, ffn_dim: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(dim, num_heads=num_heads, dropout=dropout)
        self.self_residual = Residual(dim, dropout=dropout)
        self.side_attn = side_attention
        self.side_residual = None if side_attention is None else Residual(dim, dropout=dropout)
        self.ffn = FeedForward(dim, ffn_dim=ffn_dim, dropout=dropout)

    def forward(
        self, x: Tensor, sides: tuple[SideCache, SideCache] | None, past: State, *, need_weights: bool
    ) -> tuple[Tensor, State, Maps]:
        """Update the words `x` (B, S, D), which follow words with the keys and values `past`, each (B, H, P, d)."""
        # Each word attends to itself and to the words before it.
        k, v = self.self_attn.project_kv(x)
        if past:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)  # (B, H, P + S, d)
        num_new, num_all = x.shape[1], k.shape[2]
        causal = torch.ones(num_new, num_all, dtype=torch.bool, device=x.device).tril(num_all - num_new)
        x = self.self_residual(x, self.self_attn.attend_to(self.self_attn.project_q(x), k, v, causal[None, None])[0])
        # The words attend to question and regions.
        maps: Maps = {}
        if self.side_attn is not None and self.side_residual is not None and sides is not None:
            update, maps = self.side_attn(x, sides, need_weights=need_weights)
            x = self.side_residual(x, update)
        return self.ffn(x), (k, v), maps


class TransformerDecoder(AnswerDecoder):
    """Transformer decoder (Vaswani et al. 2017, arXiv 1706.03762), with two sides to attend to.

    Each layer: masked self-attention over the words so far, attention to question and regions at once, feed-forward,
    each with residual and norm. Deliberate differences: the attentions to the two sides are summed, and the context
    vector is added to every word. With `attention="none"` that vector is all that the decoder reads.
    Maps of the last layer: `decoder.question` (B, H, S, T), `decoder.regions` (B, H, S, R); those of the earlier ones
    are `decoder.layers.<i>.question` and `decoder.layers.<i>.regions`.

    Args:
        question_dim: this and the others but the last as in `AnswerDecoder`.
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
            DecoderLayer(dim, self.make_side_attention(), num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
            for _ in range(num_layers)
        )

    def start(self, context: Context) -> State:
        """See `AnswerDecoder.start`: keys and values of no words, both (B, H, 0, d), of each layer."""
        size = (context.vector.shape[0], self.num_heads, 0, self.dim // self.num_heads)
        return tuple((context.vector.new_zeros(size), context.vector.new_zeros(size)) for _ in self.layers)

    def forward(
        self, tokens: Tensor, context: Context, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """See `AnswerDecoder.forward`."""
        num_past = state[0][0].shape[2] if state else 0
        places = torch.arange(num_past, num_past + tokens.shape[1], device=tokens.device)
        # Words, their places and the context vector in one sum.
        x = self.embed(tokens) * math.sqrt(self.dim)  # (B, S, D)
        x = self.drop(x + sinusoids(places, self.dim).to(x.dtype) + context.vector[:, None])
        maps: Maps = {}
        cache = []
        for number, layer in enumerate(self.layers):
            sides = context.sides[number] if context.sides else None
            x, past, layer_maps = layer(x, sides, state[number] if state else (), need_weights=need_weights)
            cache.append(past)
            part = DECODER if number == self.num_layers - 1 else f"{DECODER}.layers.{number}"
            maps |= prefix_maps(part, layer_maps)
        return DecoderOutput(self.word_logits(x), tuple(cache), maps)

    def side_attentions(self) -> list[SideAttention]:
        """See `AnswerDecoder.side_attentions`."""
        return [layer.side_attn for layer in self.layers if layer.side_attn is not None]  # type: ignore[misc,union-attr]


def sinusoids(places: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of places (S,) -> (S, dim) (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=places.device) * (-math.log(10_000.0) / dim))
    angles = places[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), -1)[:, :dim]
