"""Padding as the published code saw it: one brick at a model's entrance instead of a flag in every part behind it.

Letters: B batch, T tokens, R regions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .maps import Maps, parse


class Inputs(NamedTuple):
    """What a model reads; see `VQAModel.forward` for the shapes."""

    question: Tensor
    regions: Tensor
    question_mask: Tensor
    region_mask: Tensor
    boxes: Tensor | None


class OriginalPadding(nn.Module):
    """Shows a model the padding that the authors' code showed it, so that the parts behind it need no second mode.

    Much published code has no mask in some place, where padding then takes part as if it were real; how much there is
    of it changes the answer. Given to a `VQAModel`, this brick reproduces that: it makes as much padding as the
    original made and calls it real. Without it a model is *repaired*: padding changes nothing.

    Args:
        question: the original has no mask on the question.
        regions: the original has no mask on the regions.
        empty: what the original makes of a question without a word or an image without a region: "shown", it attends
            to its padding, or "nan", it answers NaN. The originals attend *uniformly*: so does this to an image, whose
            padding is all alike, but to the padding of a question by its scores (a difference that is left).
        num_tokens: the length to which the original pads or cuts each question; None takes what is given.
        num_regions: the number to which the original pads or cuts the regions of each image; None takes what is given.
        front: the original pads questions in front.
        padding_id: the id that the original puts at padding; None leaves what is given there.
        encoders: the original's encoders have no masks, only its attention has. That changes no answer, but the rows of
            attention maps that belong to padding.

    Raises:
        ValueError: unknown `empty`.
    """

    def __init__(
        self,
        *,
        question: bool = False,
        regions: bool = False,
        empty: str = "shown",
        num_tokens: int | None = None,
        num_regions: int | None = None,
        front: bool = False,
        padding_id: int | None = None,
        encoders: bool = False,
    ) -> None:
        super().__init__()
        if empty not in ("shown", "nan"):
            raise ValueError(f"empty must be shown or nan, got {empty!r}")
        self.question, self.regions, self.empty = question, regions, empty
        self.num_tokens, self.num_regions, self.front, self.padding_id = num_tokens, num_regions, front, padding_id
        self.encoders = encoders

    def forward(self, inputs: Inputs) -> Inputs:
        """Inputs right-padded to any length -> as the original pads them, with masks of what it takes for real."""
        question, question_mask = _resized(inputs.question, inputs.question_mask, self.num_tokens)
        regions, region_mask = _resized(inputs.regions, inputs.region_mask, self.num_regions)
        boxes = None if inputs.boxes is None else _resized(inputs.boxes, inputs.region_mask, self.num_regions)[0]
        if self.padding_id is not None:
            question = question.masked_fill(~question_mask, self.padding_id)
        if self.front:
            places = (torch.arange(question.shape[1], device=question.device) - _trailing(question_mask)) % max(
                question.shape[1], 1
            )
            question = _taken(question, places, 1)
            question_mask = question_mask.gather(1, places)
        if self.empty == "nan":
            regions = regions.masked_fill(~region_mask.any(1)[:, None, None], torch.nan)
        return Inputs(
            question,
            regions,
            _shown(question_mask, self.question),
            _shown(region_mask, self.regions),
            boxes,
        )

    def encoded(self, inputs: Inputs) -> Inputs:
        """What `forward` gave, as the encoders are shown it: the same, or all places as if they were real."""
        if not self.encoders:
            return inputs
        return inputs._replace(
            question_mask=torch.ones_like(inputs.question_mask), region_mask=torch.ones_like(inputs.region_mask)
        )

    def restored(self, maps: Maps, inputs: Inputs) -> Maps:
        """Maps (B, H, to, from) over the padding made here -> over the places of the `inputs` as they were given."""
        num_tokens, num_regions = inputs.question_mask.shape[1], inputs.region_mask.shape[1]
        tokens = torch.arange(num_tokens, device=inputs.question_mask.device).expand(len(inputs.question_mask), -1)
        if self.front:
            mask = _resized(inputs.question, inputs.question_mask, self.num_tokens)[1]
            tokens = (tokens + _trailing(mask)) % mask.shape[1]
        places = {
            "question": tokens,
            "regions": torch.arange(num_regions, device=tokens.device).expand(len(tokens), -1),
        }
        restored = {}
        for name, weights in maps.items():
            _, rows, columns = parse(name)
            restored[name] = _placed(weights, places[columns], 3)
            if rows is not None:
                restored[name] = _placed(restored[name], places[rows], 2)
        return restored


def _resized(rows: Tensor, mask: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Rows (B, N, ...) and mask (B, N), cut or padded with zeros to `size` places."""
    if size is None:
        return rows, mask
    missing = max(size - rows.shape[1], 0)
    rows, mask = rows[:, :size], mask[:, :size]
    return F.pad(rows, (0, 0) * (rows.dim() - 2) + (0, missing)), F.pad(mask, (0, missing))


def _trailing(mask: Tensor) -> Tensor:
    """(B, 1) number of padded places at the end of each row of `mask` (B, N)."""
    return (mask.flip(1).cumsum(1) == 0).sum(1, keepdim=True)


def _shown(mask: Tensor, everything: bool) -> Tensor:
    return torch.ones_like(mask) if everything else mask | ~mask.any(1, keepdim=True)


def _taken(rows: Tensor, places: Tensor, dim: int) -> Tensor:
    """Gather along `dim` of `rows` (B, ...) the `places` (B, N), the same for all other dimensions."""
    shape = [1] * rows.dim()
    shape[0], shape[dim] = places.shape
    wanted = list(rows.shape)
    wanted[dim] = places.shape[1]
    return rows.gather(dim, places.view(shape).expand(wanted))


def _placed(weights: Tensor, places: Tensor, dim: int) -> Tensor:
    """As `_taken`; places that the original cut off get zeros."""
    missing = max(int(places.shape[1]) - weights.shape[dim], 0)
    return _taken(F.pad(weights, (0, missing) if dim == 3 else (0, 0, 0, missing)), places, dim)
