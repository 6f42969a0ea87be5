"""Convert older versions of the format, so that model directories and checkpoints of earlier releases load.

In version 1 the projections of attention were named `query, key, value, merge`, and `VQAModel` took a `padding`. In the
first files of version 2 the argument `standardized` is still spelled `standardised`, some models have the argument
`inplace_dropout`, which is gone, and `SelfGuidedAttention` and `GuidedAttention` have other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

VERSION = 2

# For each older version: patterns in the names of parameters and buffers and their replacements, applied in order.
RENAMED: dict[int, tuple[tuple[str, str], ...]] = {
    1: (
        (
            r"\.(read_itself|read_question|read_regions|attention|look\.question|look\.regions)\.merge\.",
            r".\1.out_proj.",
        ),
        (r"\.query\.", ".q_proj."),
        (r"\.key\.", ".k_proj."),
        (r"\.value\.", ".v_proj."),
        (r"\.read_itself\.", ".self_attn."),
        (r"\.read_question\.", ".question_attn."),
        (r"\.read_regions\.", ".region_attn."),
        (r"\.attention\.", ".attn."),
        (r"\.look\.", ".side_attn."),
        (r"\.look_residual\.", ".side_residual."),
        (r"\.fix\.", ".context_proj."),
        (r"\.write\.", ".classify."),
        (r"\.normalise\.", ".normalize."),
    )
}
UNCHANGED = "question_encoder."  # its names never changed, and names inside a text encoder may match the patterns

# Arguments of parts and presets by their earlier names; None is gone, and a model computes the same without it.
EARLIER_ARGUMENTS = {"standardised": "standardized", "inplace_dropout": None}

# Classes, and layers of the preset `stack`, by their earlier names.
EARLIER_LAYERS = {
    "RegionGuidedAttention": "SelfGuidedAttention",
    "RegionQuestionAttention": "GuidedAttention",
    "region_guided": "self_guided",
    "region_question": "guided",
}

V = TypeVar("V")


def rename_parameters(state_dict: Mapping[str, V], *, version: int = 1) -> dict[str, V]:
    """Rename the entries of a state dict to the current names; their order is kept.

    A training checkpoint has no version, and its names begin with `model.`; current names are left unchanged. The order
    of a model's parameters never changes, so the state of an optimizer, which is stored by position, stays valid.

    Args:
        state_dict: values by name.
        version: the oldest version of the format that the names may belong to.
    """
    renamed = {}
    for name, value in state_dict.items():
        if UNCHANGED not in name:
            for old in range(version, VERSION):
                for pattern, replacement in RENAMED[old]:
                    name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def rename_arguments(description: Any) -> Any:
    """A description of a model, or the sizes of a preset, with each argument and layer under its current name.

    Raises:
        ValueError: an argument is there under both its earlier and its current name.
    """
    if isinstance(description, dict):
        for earlier in EARLIER_ARGUMENTS.keys() & description.keys():
            if (current := EARLIER_ARGUMENTS[earlier]) in description:
                raise ValueError(f"{earlier} is the earlier name of {current}, and both are given; remove {earlier}")
        names = ((EARLIER_ARGUMENTS.get(name, name), value) for name, value in description.items())
        return {name: rename_arguments(value) for name, value in names if name is not None}
    if isinstance(description, list):
        return [rename_arguments(item) for item in description]
    return EARLIER_LAYERS.get(description, description) if isinstance(description, str) else description


def update_config(config: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a `config.json` of any version to the current description of the model."""
    model = rename_arguments(config.get("model"))
    if config.get("version") == 1 and isinstance(model, dict) and model.get("class") == "VQAModel":
        model = dict(model)
        padding = model.pop("padding", None)
        model = {**padding, "model": model} if isinstance(padding, dict) else model
    return {**config, "model": model}
