"""Convert checkpoints of openvqa (commit f8f9966). The layouts are taken from its source.

The released files have not been tried. Each model is one row of `MODELS`: our preset, its arguments as a function of
weights and settings, and its table of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from coattn import models
from coattn.nn import VQAModel

from .names import NameTable, agreed, filled, setting, size, tensors
from .openvqa_baselines import ban_names, ban_sizes, butd_names, butd_sizes, mfb_names, mfb_sizes
from .openvqa_parts import PROJECT, Importer, add_attention, add_ends, add_mlp, add_norm


def from_openvqa(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    repaired: bool = False,
    num_tokens: int | None = None,
    num_regions: int | None = None,
) -> VQAModel:
    """Convert a checkpoint of openvqa; the model is in eval mode.

    Token ids are openvqa's (0 is padding, on the right); regions are its raw features.

    Args:
        state_dict: the model's weights, under openvqa's names.
        config: openvqa's settings as a plain dict. `MODEL_USE` names the model. Sizes are read only where the weights
            do not imply them.
        repaired: mask padding everywhere. By default the model is *faithful*: it sees padding where openvqa shows it.
        num_tokens: number of tokens after padding or cutting, 14 in openvqa; None keeps the given number.
        num_regions: number of regions after padding or cutting, 100 in openvqa; None keeps the given number.

    Raises:
        ValueError: the model is unknown, a setting is missing, or the weights belong to another model or have other
            sizes.
    """
    importer, state_dict = _importer(config), tensors(state_dict)
    # openvqa takes DATASET from its command line, not from its YAML files.
    grid, regions = (f"adapter.{name}_linear.weight" in state_dict for name in ("grid", "frcn"))
    if grid and regions:
        raise ValueError(
            "this model of openvqa reads regions and the cells of a grid at once (USE_AUX_FEAT, for GQA); only models "
            "of regions, or of a grid alone, are read"
        )
    config = {"DATASET": "clevr" if grid else "vqa"} | dict(config)
    model = importer.preset(
        **importer.sizes(state_dict, config),
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    return filled(model, importer.names(config), state_dict, project=f"openvqa's {config['MODEL_USE']}")


def openvqa_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of the model that `config` describes.

    Raises:
        ValueError: the model is unknown, or a setting is missing.
    """
    return _importer(config).names(config)


def _importer(config: Mapping[str, Any]) -> Importer:
    name = setting(config, "MODEL_USE", str, project=PROJECT)
    if name not in MODELS:
        raise ValueError(f"openvqa's MODEL_USE {name!r} is not known; known are {', '.join(MODELS)}")
    return MODELS[name]


# MCAN


def mcan_sizes(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    region_linear: str | None = None,
    project: str = PROJECT,
) -> dict[str, Any]:
    """The arguments of MCAN's preset for these weights and settings; `region_linear` as in `mcan_names`."""
    read, width = partial(setting, config, project=project), partial(size, state_dict, project=f"{project}'s mcan")
    agree = partial(agreed, config, project=project)
    boxes, region_linear = bool(config.get("USE_BBOX_FEAT")), region_linear or _region_linear(config)
    geometry_dim = width("adapter.bbox_linear.weight") if boxes else None
    return {
        "num_words": width("embedding.weight"),
        "embedding_dim": width("embedding.weight", 1),
        "region_dim": width(f"{region_linear}.weight", 1) - (geometry_dim or 0),
        "geometry_dim": geometry_dim,
        "geometry_pixels": not config.get("BBOX_NORMALIZE", True),
        "num_answers": width("proj.weight"),
        "ffn_dim": width("backbone.enc_list.0.ffn.mlp.fc.linear.weight"),
        "num_layers": agree("LAYER", count_layers(state_dict)),
        "dim": agree("HIDDEN_SIZE", width("lstm.weight_hh_l0", 1)),
        "num_heads": read("MULTI_HEAD", int),
        "pooling_dim": width("attflat_lang.mlp.fc.linear.weight"),
        "joint_dim": width("proj.weight", 1),
        "num_glimpses": agree("FLAT_GLIMPSES", width("attflat_lang.mlp.linear.weight")),
        "dropout": read("DROPOUT_R", float),
    }


def count_layers(state_dict: Mapping[str, Tensor]) -> int:
    """The number of MCAN's encoder layers in the weights."""
    first = "backbone.enc_list."
    return len({name.removeprefix(first).partition(".")[0] for name in state_dict if name.startswith(first)})


def _region_linear(config: Mapping[str, Any]) -> str:
    """The name of the regions' linear map; models of CLEVR read grid cells through another one."""
    return "adapter.grid_linear" if config.get("DATASET") == "clevr" else "adapter.frcn_linear"


def mcan_names(config: Mapping[str, Any], *, region_linear: str | None = None, project: str = PROJECT) -> NameTable:
    """The table of names of MCAN; `region_linear` is the project's name of the regions' linear map if it is another."""
    names = NameTable()
    add_ends(names)
    names.linear("region_encoder.features", region_linear or _region_linear(config))
    if config.get("USE_BBOX_FEAT"):
        names.linear("region_encoder.geometry", "adapter.bbox_linear")
    num_layers = setting(config, "LAYER", int, project=project)
    for i in range(num_layers):
        ours, theirs = f"coattention.layers.{i}", f"backbone.enc_list.{i}"
        add_attention(names, f"{ours}.self_attn", f"{theirs}.mhatt")
        add_norm(names, f"{ours}.residual.norm", f"{theirs}.norm1")
        add_mlp(names, f"{ours}.ffn.mlp", f"{theirs}.ffn")
        add_norm(names, f"{ours}.ffn.residual.norm", f"{theirs}.norm2")
        ours, theirs = f"coattention.layers.{num_layers + i}", f"backbone.dec_list.{i}"
        add_attention(names, f"{ours}.self_attn", f"{theirs}.mhatt1")
        add_norm(names, f"{ours}.self_residual.norm", f"{theirs}.norm1")
        add_attention(names, f"{ours}.question_attn", f"{theirs}.mhatt2")
        add_norm(names, f"{ours}.guided_residual.norm", f"{theirs}.norm2")
        add_mlp(names, f"{ours}.ffn.mlp", f"{theirs}.ffn")
        add_norm(names, f"{ours}.ffn.residual.norm", f"{theirs}.norm3")
    return names


# MMNasNet


def mmnasnet_sizes(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of MMNasNet's preset for these weights and settings."""
    read, width = partial(setting, config, project=PROJECT), partial(size, state_dict, project="openvqa's mmnasnet")
    question_operations, region_operations = _operations(config)
    agree = partial(agreed, config, project=PROJECT)
    dim, relation_head_dim = agree("HIDDEN_SIZE", width("lstm.weight_hh_l0", 1)), read("REL_HBASE", int)
    if dim % relation_head_dim:
        raise ValueError(f"openvqa's REL_HBASE {relation_head_dim} does not divide its HIDDEN_SIZE {dim}")
    return {
        "num_words": width("embedding.weight"),
        "embedding_dim": width("embedding.weight", 1),
        "region_dim": width("adapter.frcn_linear.weight", 1),
        "num_answers": width("proj.weight"),
        "question_operations": question_operations,
        "region_operations": region_operations,
        "dim": dim,
        "num_heads": read("MULTI_HEAD", int),
        "relation_heads": dim // relation_head_dim,
        "relation_dim": width("linear_rel.weight"),
        "pixels": not config.get("BBOX_NORMALIZE", False),
        "pooling_dim": width("attflat_lang.mlp.fc.linear.weight"),
        "joint_dim": width("proj.weight", 1),
        "num_glimpses": agree("FLAT_GLIMPSES", width("attflat_lang.mlp.linear.weight")),
        "dropout": read("DROPOUT_R", float),
    }


def mmnasnet_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of MMNasNet."""
    names = NameTable()
    add_ends(names)
    names.linear("region_encoder.features", "adapter.frcn_linear")
    names.linear("region_encoder.relations", "linear_rel")
    for operations, our_list, their_list in zip(
        _operations(config), ("question_steps", "region_steps"), ("enc_list", "dec_list"), strict=True
    ):
        for i, name in enumerate(operations):
            ours, theirs = f"coattention.{our_list}.{i}", f"backbone.{their_list}.{i}"
            if name == "FFN":
                add_mlp(names, f"{ours}.ffn.mlp", theirs)
                add_norm(names, f"{ours}.ffn.residual.norm", f"{theirs}.norm")
                continue
            add_attention(names, f"{ours}.attn", f"{theirs}.mhatt")
            add_norm(names, f"{ours}.residual.norm", f"{theirs}.norm")
            if name == "RSA":
                names.linear(f"{ours}.relation", f"{theirs}.mhatt.linear_r")
    return names


def _operations(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    architecture = setting(config, "ARCH", dict, project=PROJECT)
    question, regions = (setting(architecture, side, list, project="openvqa's ARCH") for side in ("enc", "dec"))
    return question, regions


MODELS = {
    "mcan": Importer(models.mcan_small, mcan_sizes, mcan_names),
    "mmnasnet": Importer(models.mmnasnet_small, mmnasnet_sizes, mmnasnet_names),
    "butd": Importer(models.butd, butd_sizes, butd_names),
    "ban": Importer(models.ban, ban_sizes, ban_names),
    "mfb": Importer(models.mfb, mfb_sizes, mfb_names),
    "mfh": Importer(models.mfb, mfb_sizes, mfb_names),
}
