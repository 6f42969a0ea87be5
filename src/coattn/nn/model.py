"""The model: four parts, given from outside, and the order in which data passes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .coattention.base import Maps
from .padding import Inputs, OriginalPadding


class VQAOutput(NamedTuple):
    """What a model returns.

    Attributes:
        logits: (B, A), one score per answer of the vocabulary.
        maps: name -> attention map (B, H, to, from), empty unless asked for. `layers.<i>.<who>_to_<whom>` come from
            the co-attention, `pooling.question` and `pooling.regions` from the head.
    """

    logits: Tensor
    maps: Maps


class VQAModel(nn.Module):
    """Answers questions about images: encode the question, encode the regions, let them attend, classify.

    Args:
        question_encoder: `(question, mask) -> Question`, see `question`.
        region_encoder: `(regions, mask, boxes, image_sizes) -> (B, R, D)`, see `regions`.
        coattention: `(question, regions, question_mask, region_mask, *, need_weights) -> CoAttentionOutput`, given the
            whole `Question` and what the region encoder gave.
        head: `(attended, question, question_mask, region_mask) -> HeadOutput`.
        padding: for a *faithful* copy of published code, padding as that code saw it; None masks it everywhere.
    """

    def __init__(
        self,
        question_encoder: nn.Module,
        *,
        region_encoder: nn.Module,
        coattention: nn.Module,
        head: nn.Module,
        padding: OriginalPadding | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.question_encoder = question_encoder
        self.region_encoder = region_encoder
        self.coattention = coattention
        self.head = head

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
    ) -> VQAOutput:
        """Score the answers to a batch of questions. Pure: nothing is kept between calls.

        Args:
            question: (B, T) int64 token ids, or (B, T, E) token embeddings; zeros at padding, which is on the right.
            regions: (B, R, D_in) region features, zeros at padding.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
            boxes: (B, R, 4) x1 y1 x2 y2 in [0, 1] of the image, for models that use them.
            image_sizes: (B, 2) width and height in pixels, for the few models that need them.
            need_weights: return the attention maps too; changes the logits by rounding only.

        Raises:
            ValueError: masks that do not fit, wrong widths, ids where embeddings are expected or the reverse, boxes
                missing though the model uses them.
        """
        for name, mask, values in (("question", question_mask, question), ("region", region_mask, regions)):
            if mask.shape != values.shape[:2] or mask.dtype != torch.bool:
                raise ValueError(
                    f"{name}_mask must be bool of shape {tuple(values.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}"
                )
        given = inputs = Inputs(question, regions, question_mask, region_mask, boxes)
        if self.padding is not None:
            inputs = self.padding(given)
        encoded = self.question_encoder(inputs.question, inputs.question_mask)
        attended = self.coattention(
            encoded,
            self.region_encoder(inputs.regions, inputs.region_mask, inputs.boxes, image_sizes),
            inputs.question_mask,
            inputs.region_mask,
            need_weights=need_weights,
        )
        logits, pooling_maps = self.head(attended, encoded, inputs.question_mask, inputs.region_mask)
        maps = attended.maps | pooling_maps if need_weights else {}
        return VQAOutput(logits, maps if self.padding is None else self.padding.restored(maps, given))
