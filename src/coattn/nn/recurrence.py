"""LSTM or GRU over right-padded tokens, independent of padding.

Letters: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fast_cpu import dropout
from .layers import reverse_padded

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrences(nn.ModuleList):
    """Recurrent layers, in one or two directions: one module per layer and direction, forward first.

    The forward direction meets right padding last; the backward direction reads each row reversed within its length.
    Packed sequences are not needed, which would copy the lengths to the host in every step.

    Args:
        input_dim: width of the input.
        dim: width D of the output; with two directions each gets half of it.
        cell: "lstm" or "gru".
        bidirectional: read in both directions.
        num_layers: number of layers.
        dropout: dropout between the layers.
        learned_start: learn the states from which the layers start, else zeros. One row per layer and direction, the
            hidden states first and then, for an LSTM, the cells.

    Raises:
        ValueError: unknown cell, or an odd `dim` with two directions.
    """

    def __init__(
        self,
        input_dim: int,
        dim: int,
        *,
        cell: str = "lstm",
        bidirectional: bool = False,
        num_layers: int = 1,
        dropout: float = 0.0,
        learned_start: bool = False,
    ) -> None:
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        num_directions = 2 if bidirectional else 1
        if dim % num_directions:
            raise ValueError(f"a bidirectional encoder needs an even dim, got {dim}")
        super().__init__(
            nn.ModuleList(
                CELLS[cell](input_dim if layer == 0 else dim, dim // num_directions, batch_first=True)
                for _ in range(num_directions)
            )
            for layer in range(num_layers)
        )
        self.cell, self.num_directions, self.dropout = cell, num_directions, dropout
        self.start: nn.Parameter | None = None
        if learned_start:
            num_rows = (2 if cell == "lstm" else 1) * num_layers * num_directions
            self.start = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_rows, dim // num_directions)))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read `x` (B, T, input_dim) with `mask` (B, T).

        Returns:
            States (B, T, D), zeros at padding, and the last state of each direction, (B, D): at the last real token
            forwards, at the first backwards; zeros for a row without tokens.
        """
        lengths = mask.sum(1)
        last = (lengths - 1).clamp(min=0)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        ends: list[Tensor] = []
        for number, layer in enumerate(self):
            assert isinstance(layer, nn.ModuleList)
            x = dropout(x, self.dropout, self.training and number > 0)
            outputs = []
            ends = []
            for backward, recurrence in enumerate(layer):
                start = self._start(number * self.num_directions + backward, x.shape[0])
                states = _states(recurrence, reverse_padded(x, lengths) if backward else x, start)
                ends.append(states[rows, last])
                outputs.append(reverse_padded(states, lengths) if backward else states)
            x = torch.cat(outputs, -1) * mask[:, :, None]
        return x, torch.cat(ends, -1) * (lengths > 0)[:, None]

    def _start(self, row: int, num_rows: int) -> Tensor | tuple[Tensor, ...] | None:
        """The state, of `num_rows` equal rows, from which a layer and direction starts; None for zeros."""
        if self.start is None:
            return None
        states = tuple(
            state[row].expand(1, num_rows, -1).contiguous()
            for state in self.start.chunk(2 if self.cell == "lstm" else 1)
        )
        return states if self.cell == "lstm" else states[0]


def _states(recurrence: nn.Module, x: Tensor, start: Tensor | tuple[Tensor, ...] | None) -> Tensor:
    """All states; on a GPU in mixed precision computed in float32.

    On a GPU torch's autocast runs cuDNN's recurrences in float16 for every autocast type (torch's
    aten/src/ATen/cudnn/AutocastRNN.cpp). Gradients of bfloat16 training are not scaled and could vanish in float16.
    """
    if x.device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return recurrence(x, start)[0]
    with torch.autocast("cuda", enabled=False):
        return recurrence(x.float(), start)[0].to(torch.get_autocast_dtype("cuda"))
