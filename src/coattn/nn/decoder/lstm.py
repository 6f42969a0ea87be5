"""The recurrent decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..maps import DECODER, prefix_maps
from .base import AnswerDecoder, Context, DecoderOutput, SideAttention, State


class LSTMDecoder(AnswerDecoder):
    """LSTM over the words of the answer (after Bahdanau et al. 2014, arXiv 1409.0473, section 3.1).

    With the state s and the previous word y, for each word in turn::

        c_i = attend(s_{i-1} -> question) + attend(s_{i-1} -> regions)
        s_i = LSTM(s_{i-1}, [y_{i-1}, c_i])
        p(y_i) = softmax(W norm(U [s_i, c_i, y_{i-1}]))

    The context vector is the first state. Deliberate differences from the paper: an LSTM instead of its gated unit,
    layer norm instead of maxout, and two sides. With `attention="none"` there is no c.
    Maps: `decoder.question` (B, H, S, T), `decoder.regions` (B, H, S, R).

    Args:
        question_dim: this and the others as in `AnswerDecoder`.
        region_dim: width of the co-attended regions.
        num_answer_words: number V of word ids.
        dim: width D.
        summary_dim: width of the question encoder's summary.
        attention: "additive", "dot" or "none".
        num_heads: attention heads.
        num_layers: layers of the LSTM.
        dropout: dropout throughout.
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
        self.side_attn = self.make_side_attention()
        context_dim = 0 if self.side_attn is None else dim
        self.cells = nn.ModuleList(
            nn.LSTMCell(dim + context_dim if layer == 0 else dim, dim) for layer in range(num_layers)
        )
        self.join = nn.Linear(2 * dim + context_dim, dim)
        self.normalize = nn.LayerNorm(dim)

    def start(self, context: Context) -> State:
        """See `AnswerDecoder.start`: the hidden state and the cell of each layer, both (B, D)."""
        return tuple((context.vector, torch.zeros_like(context.vector)) for _ in self.cells)

    def forward(
        self, tokens: Tensor, context: Context, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """See `AnswerDecoder.forward`."""
        words = self.drop(self.embed(tokens))  # (B, S, D)
        cells = list(state or self.start(context))
        outputs, maps = [], []
        for word in words.unbind(1):  # (B, D)
            # The last layer's state attends to both sides.
            inputs = [word]
            if self.side_attn is not None:
                attended, weights = self.side_attn(cells[-1][0][:, None], context.sides[0], need_weights=need_weights)
                inputs.append(attended[:, 0])
                maps.append(weights)
            # One step of each layer.
            x = torch.cat(inputs, -1)
            for layer, cell in enumerate(self.cells):
                cells[layer] = cell(self.drop(x) if layer else x, cells[layer])
                x = cells[layer][0]
            outputs.append(torch.cat((x, *inputs), -1))
        logits = self.word_logits(self.normalize(self.join(torch.stack(outputs, 1))))
        joined = {name: torch.cat([step[name] for step in maps], 2) for name in (maps[0] if maps else ())}
        return DecoderOutput(logits, tuple(cells), prefix_maps(DECODER, joined))

    def side_attentions(self) -> list[SideAttention]:
        """See `AnswerDecoder.side_attentions`."""
        return [] if self.side_attn is None else [self.side_attn]
