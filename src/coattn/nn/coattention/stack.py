"""Layers applied one after the other, equal or mixed, with separate or shared weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..maps import Maps, prefix_maps
from ..question import Question
from .base import CoAttentionLayer, LayerOutput


class CoAttentionOutput(NamedTuple):
    """The output of the co-attention part of a model.

    Attributes:
        question: (B, T, question_dim).
        regions: (B, R, region_dim).
        pooled: pairs of a question vector (B, question_dim) and a region vector (B, region_dim), where a paper pools
            itself (one pair per level of HieCoAtt); empty if the head pools.
        maps: name -> attention map (B, H, to, from), empty unless asked for.
    """

    question: Tensor
    regions: Tensor
    pooled: tuple[tuple[Tensor, Tensor], ...]
    maps: Maps


class CoAttentionStack(nn.Module):
    """A list of co-attention layers, applied one after the other.

    Args:
        layers: the layers, all of the same two widths.
        order: the layer of each step, by its place in `layers`; each layer once, in turn, when None.
            `order=[0, 0, 0]` applies one layer three times: recurrent stacking with shared weights.

    Attributes:
        checkpoint_activations: in training save only the inputs of each layer, and recompute the rest in the backward
            pass with the same dropout (Chen et al. 2016, arXiv 1604.06174). This takes a third more computation, and
            the memory of one layer instead of all. It changes no result and is not part of the configuration.

    Raises:
        ValueError: no layers, layers of different widths, or an order that names an unknown layer or omits
            one.
    """

    def __init__(self, layers: Sequence[CoAttentionLayer], *, order: Sequence[int] | None = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a stack needs at least one layer")
        widths = {(layer.question_dim, layer.region_dim) for layer in layers}
        if len(widths) > 1:
            raise ValueError(f"layers of a stack must agree in (question_dim, region_dim), got {sorted(widths)}")
        if order is not None and set(order) != set(range(len(layers))):
            raise ValueError(f"order must name each of the {len(layers)} layers by its place, got {list(order)}")
        self.layers = nn.ModuleList(layers)
        self.order = None if order is None else list(order)
        self.checkpoint_activations = False

    def forward(
        self,
        question: Question | Tensor,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
        images: Tensor | None = None,
    ) -> CoAttentionOutput:
        """Apply the layers to the tokens of `question`, (B, T, question_dim), and `regions` (B, R, region_dim).

        With `images` (B,), the image of each question, `regions` and `region_mask` hold each of I images once. They are
        computed once for all questions about the image up to the first exchange, where the layers can do so.

        Maps are named `layers.<step>.<name>`, steps counted from 0.
        """
        maps: Maps = {}
        tokens = question.tokens if isinstance(question, Question) else question
        for step, index in enumerate(self.order if self.order is not None else range(len(self.layers))):
            layer = self.layers[index]
            apply: Callable[..., LayerOutput] = partial(layer, need_weights=need_weights)
            if images is not None and layer.shares_images:
                apply = partial(apply, images=images)
            elif images is not None:
                regions, region_mask, images = regions[images], region_mask[images], None
            if self.checkpoint_activations and torch.is_grad_enabled():
                apply = partial(checkpoint, apply, use_reentrant=False)
            tokens, new_regions, layer_maps = apply(tokens, regions, question_mask, region_mask)
            if images is not None and new_regions is not regions:  # each question has its regions now
                region_mask, images = region_mask[images], None
            regions = new_regions
            maps |= prefix_maps(f"layers.{step}", layer_maps)
        if images is not None:
            regions = regions[images]
        return CoAttentionOutput(tokens, regions, (), maps)
