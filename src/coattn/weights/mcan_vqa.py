"""Checkpoints of mcan-vqa (commit 6b165e9), the MCAN authors' first release. Layouts taken from its source.

Never yet run on the files it released. It is openvqa's MCAN without boxes, under one other name; it returns the sigmoid
of the logits, ours the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from coattn import models
from coattn.nn import VQAModel

from .names import NameTable, filled, size, tensors
from .openvqa import count_layers, mcan_names, mcan_sizes

PROJECT = "mcan-vqa"
REGION_LINEAR = "img_feat_linear"


def from_mcan_vqa(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    repaired: bool = False,
    num_tokens: int | None = None,
    num_regions: int | None = None,
) -> VQAModel:
    """A model of mcan-vqa with its released weights, in eval mode: MCAN (arXiv 1906.10770), small or large.

    Token ids are mcan-vqa's (0 is padding, on the right); regions its raw features.

    Args:
        state_dict: the model's weights, under mcan-vqa's names.
        config: its settings as a plain dict. MULTI_HEAD must be there; LAYER, HIDDEN_SIZE and FLAT_GLIMPSES are
            compared with the weights; DROPOUT_R is 0.1, as published, unless it is there.
        repaired: mask padding everywhere. Else the model is *faithful*: it is shown padding where mcan-vqa shows it.
        num_tokens: number of tokens after padding or cutting, 14 in mcan-vqa; None keeps the given one.
        num_regions: likewise the regions (100).

    Raises:
        ValueError: a setting is missing, or weights of another model or other sizes.
    """
    state_dict = tensors(state_dict)
    config = _visible(state_dict) | {"DROPOUT_R": 0.1} | dict(config)
    model = models.mcan_small(
        **mcan_sizes(state_dict, config, region_linear=REGION_LINEAR, project=PROJECT),
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    return filled(model, mcan_vqa_names(config), state_dict, project=PROJECT)


def _visible(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that the weights show."""
    return {
        "LAYER": count_layers(state_dict),
        "HIDDEN_SIZE": size(state_dict, "lstm.weight_hh_l0", 1, project=PROJECT),
        "FLAT_GLIMPSES": size(state_dict, "attflat_lang.mlp.linear.weight", project=PROJECT),
    }


def mcan_vqa_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of mcan-vqa's model; of the settings it reads LAYER.

    Raises:
        ValueError: a setting is missing.
    """
    return mcan_names(config, region_linear=REGION_LINEAR, project=PROJECT)
