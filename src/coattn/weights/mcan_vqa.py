"""Convert checkpoints of mcan-vqa (commit 6b165e9), the first release of MCAN's authors.

The layouts are taken from its source; the released files have not been tried. The model is openvqa's MCAN without
boxes; one parameter has another name. It returns the sigmoid of the logits, our model returns the logits.
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
    """Convert a checkpoint of mcan-vqa, MCAN (arXiv 1906.10770) small or large; the model is in eval mode.

    Token ids are mcan-vqa's (0 is padding, on the right); regions are its raw features.

    Args:
        state_dict: the model's weights, under mcan-vqa's names.
        config: its settings as a plain dict. MULTI_HEAD is required. LAYER, HIDDEN_SIZE and FLAT_GLIMPSES are compared
            with the weights if given. DROPOUT_R is 0.1, as published, unless given.
        repaired: mask padding everywhere. By default the model is *faithful*: it sees padding where mcan-vqa shows it.
        num_tokens: number of tokens after padding or cutting, 14 in mcan-vqa; None keeps the given number.
        num_regions: number of regions after padding or cutting, 100 in mcan-vqa; None keeps the given number.

    Raises:
        ValueError: a setting is missing, or the weights belong to another model or have other sizes.
    """
    state_dict = tensors(state_dict)
    implied = {
        "LAYER": count_layers(state_dict),
        "HIDDEN_SIZE": size(state_dict, "lstm.weight_hh_l0", 1, project=PROJECT),
        "FLAT_GLIMPSES": size(state_dict, "attflat_lang.mlp.linear.weight", project=PROJECT),
        "DROPOUT_R": 0.1,
    }
    config = implied | dict(config)
    model = models.mcan_small(
        **mcan_sizes(state_dict, config, region_linear=REGION_LINEAR, project=PROJECT),
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    return filled(model, mcan_vqa_names(config), state_dict, project=PROJECT)


def mcan_vqa_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of mcan-vqa's model; of the settings only LAYER is used.

    Raises:
        ValueError: a setting is missing.
    """
    return mcan_names(config, region_linear=REGION_LINEAR, project=PROJECT)
