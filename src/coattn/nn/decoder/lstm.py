"""The recurrent decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..maps import DECODER, prefix_maps
from .base import AnswerDecoder, DecoderOutput, Memory, SideAttention, State


class LSTMDecoder(AnswerDecoder):
    """LSTM over the words of the answer (after Bahdanau et al. 2014, arXiv 1409.0473, section 3.1).

    With the state s and the word y written before, for each word in turn::

        c_i = attend(s_{i-1} -> question) + attend(s_{i-1} -> regions)
        s_i = LSTM(s_{i-1}, [y_{i-1}, c_i])
        p(y_i) = softmax(W norm(U [s_i, c_i, y_{i-1}]))

    The first state is made of the fixed vector. Deliberate differences: an LSTM where the paper has gates of its own,
    layer norm where it has maxout, two sides. With "none" there is no c: the fixed vector is all the LSTM ever knows.
    Maps: `decoder.question` (B, H, S, T), `decoder.regions` (B, H, S, R).
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
        self.look = self._side_attention()
        context_dim = 0 if self.look is None else dim
        self.cells = nn.ModuleList(
            nn.LSTMCell(dim + context_dim if layer == 0 else dim, dim) for layer in range(num_layers)
        )
        self.join = nn.Linear(2 * dim + context_dim, dim)
        self.normalise = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, memory: Memory, state: State = (), *, need_weights: bool = False
    ) -> DecoderOutput:
        """See `AnswerDecoder.forward`."""
        words = self.drop(self.embed(tokens))
        cells = list(state) or [(memory.fixed, torch.zeros_like(memory.fixed)) for _ in self.cells]
        known, maps = [], []
        for word in words.unbind(1):
            inputs = [word]
            if self.look is not None:
                context, weights = self.look(cells[-1][0][:, None], memory.sources[0], need_weights=need_weights)
                inputs.append(context[:, 0])
                maps.append(weights)
            x = torch.cat(inputs, -1)
            for layer, cell in enumerate(self.cells):
                cells[layer] = cell(self.drop(x) if layer else x, cells[layer])
                x = cells[layer][0]
            known.append(torch.cat((x, *inputs), -1))
        logits = self._scores(self.normalise(self.join(torch.stack(known, 1))))
        joined = {name: torch.cat([step[name] for step in maps], 2) for name in (maps[0] if maps else ())}
        return DecoderOutput(logits, tuple(cells), prefix_maps(DECODER, joined))

    def _side_attentions(self) -> list[SideAttention]:
        return [] if self.look is None else [self.look]
