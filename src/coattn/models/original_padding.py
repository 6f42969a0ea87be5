"""Reproduce the padding of published code, which often lacks a mask, so that padding influences the answer.

Letters: B batch, T tokens, R regions, H heads, N places of either side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from coattn.nn import VQAModel, VQAOutput
from coattn.nn.maps import Maps, parse
from coattn.nn.model import check_masks


class Inputs(NamedTuple):
    """The inputs of a model; see `VQAModel.forward` for the shapes."""

    question: Tensor
    regions: Tensor
    question_mask: Tensor
    region_mask: Tensor
    boxes: Tensor | None


class OriginalPadding(VQAModel):
    """Wrap a model that masks padding everywhere, so that it sees padding where its authors' code has no mask.

    Where the original has no mask, the amount of padding changes its answers. This wrapper pads inputs to the lengths
    of the original, marks the padding as real, runs the parts of `model`, and returns maps over the given places. It
    has the parts and the parameter names of `model`. Without the wrapper a model is *repaired*: padding changes
    nothing.

    Args:
        model: the repaired model.
        question: the original has no mask on the question.
        regions: the original has no mask on the regions.
        empty: behavior of the original for a question without words or an image without regions: "shown" attends to its
            padding, "nan" answers NaN. The originals attend *uniformly*. This wrapper does so for an image, whose
            padded regions are all equal. For a question it attends by the scores of the padding, a remaining
            difference.
        num_tokens: the length to which the original pads or cuts each question; None keeps the length.
        num_regions: the number to which the original pads or cuts the regions of each image; None keeps the number.
        front: the original pads questions in front.
        padding_id: the id that the original writes at padding; None keeps the given id.
        encoders: the encoders of the original have no masks, only its attention has. This changes no answer, only the
            rows of attention maps that belong to padding.

    Raises:
        ValueError: `empty` is unknown.
    """

    def __init__(
        self,
        model: VQAModel,
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
        super().__init__(
            model.question_encoder,
            region_encoder=model.region_encoder,
            coattention=model.coattention,
            head=model.head,
        )
        if empty not in ("shown", "nan"):
            raise ValueError(f"empty must be shown or nan, got {empty!r}")
        self.question, self.regions, self.empty = question, regions, empty
        self.num_tokens, self.num_regions, self.front, self.padding_id = num_tokens, num_regions, front, padding_id
        self.encoders = encoders

    @property
    def model(self) -> VQAModel:
        """The repaired model, of the same parts."""
        return VQAModel(
            self.question_encoder, region_encoder=self.region_encoder, coattention=self.coattention, head=self.head
        )

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        *,
        question_mask: Tensor,
        region_mask: Tensor,
        boxes: Tensor | None = None,
        image_sizes: Tensor | None = None,
        need_weights: bool = False,
        images: Tensor | None = None,
    ) -> VQAOutput:
        """See `VQAModel.forward`."""
        if images is not None:
            regions, region_mask = regions[images], region_mask[images]
            boxes, image_sizes = (None if part is None else part[images] for part in (boxes, image_sizes))
        check_masks(question, regions, question_mask, region_mask)
        inputs = Inputs(question, regions, question_mask, region_mask, boxes)
        padded = self.pad(inputs)
        shown_words, shown_regions = padded.question_mask, padded.region_mask
        if self.encoders:
            shown_words, shown_regions = torch.ones_like(shown_words), torch.ones_like(shown_regions)

        # The steps of VQAModel.forward, with the masks of the original's encoders and attention.
        encoded = self.question_encoder(padded.question, shown_words)
        tokens = self.region_encoder(padded.regions, shown_regions, padded.boxes, image_sizes)
        attended = self.coattention(
            encoded, tokens, padded.question_mask, padded.region_mask, need_weights=need_weights
        )
        logits, pooling_maps = self.head(attended, encoded, padded.question_mask, padded.region_mask)
        return VQAOutput(logits, self.unpad_maps(attended.maps | pooling_maps, inputs) if need_weights else {})

    def pad(self, inputs: Inputs) -> Inputs:
        """Pad right-padded inputs as the original does; the masks are True wherever the original has no mask."""
        question, question_mask = resize(inputs.question, inputs.question_mask, self.num_tokens)
        regions, region_mask = resize(inputs.regions, inputs.region_mask, self.num_regions)
        boxes = None if inputs.boxes is None else resize(inputs.boxes, inputs.region_mask, self.num_regions)[0]
        if self.padding_id is not None:
            question = question.masked_fill(~question_mask, self.padding_id)
        if self.front:
            # Rotate each row so that its trailing padding comes first.
            num_places = question.shape[1]
            places = torch.arange(num_places, device=question.device) - count_trailing(question_mask)
            places = places % max(num_places, 1)  # (B, T)
            question = gather_places(question, places, 1)
            question_mask = question_mask.gather(1, places)
        if self.empty == "nan":
            regions = regions.masked_fill(~region_mask.any(1)[:, None, None], torch.nan)
        # A row without real places attends to its padding.
        question_mask = torch.ones_like(question_mask) if self.question else fill_empty(question_mask)
        region_mask = torch.ones_like(region_mask) if self.regions else fill_empty(region_mask)
        return Inputs(question, regions, question_mask, region_mask, boxes)

    def unpad_maps(self, maps: Maps, inputs: Inputs) -> Maps:
        """Convert maps (B, H, to, from) over the padded places to maps over the places of the given `inputs`."""
        num_tokens, num_regions = inputs.question_mask.shape[1], inputs.region_mask.shape[1]
        batch_size, device = inputs.question_mask.shape[0], inputs.question_mask.device
        tokens = torch.arange(num_tokens, device=device).expand(batch_size, -1)
        if self.front:
            mask = resize(inputs.question, inputs.question_mask, self.num_tokens)[1]
            tokens = (tokens + count_trailing(mask)) % mask.shape[1]
        places = {"question": tokens, "regions": torch.arange(num_regions, device=device).expand(batch_size, -1)}
        unpadded = {}
        for name, weights in maps.items():
            _, rows, columns = parse(name)
            unpadded[name] = gather_padded(weights, places[columns], 3)
            if rows is not None:
                unpadded[name] = gather_padded(unpadded[name], places[rows], 2)
        return unpadded


def resize(rows: Tensor, mask: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Cut rows (B, N, ...) and their mask (B, N), or pad them with zeros, to `size` places."""
    if size is None:
        return rows, mask
    missing = max(size - rows.shape[1], 0)
    rows, mask = rows[:, :size], mask[:, :size]
    return F.pad(rows, (0, 0) * (rows.dim() - 2) + (0, missing)), F.pad(mask, (0, missing))


def count_trailing(mask: Tensor) -> Tensor:
    """The number (B, 1) of padded places at the end of each row of `mask` (B, N)."""
    return (mask.flip(1).cumsum(1) == 0).sum(1, keepdim=True)


def fill_empty(mask: Tensor) -> Tensor:
    """The mask (B, N), all True in rows without a real place."""
    return mask | ~mask.any(1, keepdim=True)


def gather_places(rows: Tensor, places: Tensor, dim: int) -> Tensor:
    """Gather the `places` (B, N) along `dim` of `rows` (B, ...), the same for all other dimensions."""
    index_shape = [1] * rows.dim()
    index_shape[0], index_shape[dim] = places.shape
    result_shape = list(rows.shape)
    result_shape[dim] = places.shape[1]
    return rows.gather(dim, places.view(index_shape).expand(result_shape))


def gather_padded(weights: Tensor, places: Tensor, dim: int) -> Tensor:
    """Like `gather_places`; places that the original cut off get zeros."""
    missing = max(int(places.shape[1]) - weights.shape[dim], 0)
    return gather_places(F.pad(weights, (0, missing) if dim == 3 else (0, 0, 0, missing)), places, dim)
