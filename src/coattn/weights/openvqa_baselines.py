"""Sizes and tables of names of openvqa's bottom-up top-down attention, BAN, MFB and MFH."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from .names import Layout, NameTable, agreed, setting, size
from .openvqa_parts import PROJECT, add_mlp


def add_weight_norm(names: NameTable, ours: str, theirs: str) -> None:
    """Add a weight-normalized linear map, our `WeightNormLinear`."""
    names.tensors(ours, theirs, ("weight_v", "weight_g", "bias"))


def add_classifier(names: NameTable) -> None:
    """Add the classifier, our `WeightNormClassifier`; "classifer" is openvqa's spelling."""
    add_weight_norm(names, "head.classify.hidden", "classifer.0")
    add_weight_norm(names, "head.classify.output", "classifer.3")


def _dropped(config: Mapping[str, Any]) -> str:
    """The name of a map that follows a dropout in openvqa's sequences; without dropout the map comes first."""
    return "mlp.1" if setting(config, "DROPOUT_R", float, project=PROJECT) > 0 else "mlp.0"


# Bottom-up top-down attention


def butd_sizes(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `butd` for these weights and settings."""
    read, width = partial(setting, config, project=PROJECT), partial(size, state_dict, project="openvqa's butd")
    return {
        "num_words": width("embedding.weight"),
        "embedding_dim": width("embedding.weight", 1),
        "region_dim": width("backbone.v_att.linear_v.weight_v"),
        "num_answers": width("classifer.3.weight_v"),
        "dim": width("rnn.weight_hh_l0", 1),
        "classifier_dim": width("classifer.3.weight_v", 1),
        "dropout": read("DROPOUT_R", float),
        "classifier_dropout": read("CLASSIFER_DROPOUT_R", float),
    }


def butd_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of bottom-up top-down attention."""
    names = NameTable()
    names.tensor("question_encoder.embedding.embed.weight", "embedding.weight")
    names.recurrence("question_encoder.recurrences", "rnn")
    for ours, theirs in (
        ("question", "linear_q"),
        ("regions", "linear_v"),
        ("hidden", f"nonlinear.{_dropped(config)}"),
        ("output", "linear"),
    ):
        add_weight_norm(names, f"coattention.score.{ours}", f"backbone.v_att.{theirs}")
    add_weight_norm(names, "head.question", "backbone.q_net.mlp.0")
    add_weight_norm(names, "head.regions", "backbone.v_net.mlp.0")
    add_classifier(names)
    return names


# BAN

ATTENTION = "backbone.BiAtt.logits"
H_MAT = Layout(lambda theirs: theirs[0, :, 0], lambda ours: ours[None, :, None])  # (1, G, 1, K), ours (G, K)
H_BIAS = Layout(lambda theirs: theirs.flatten(), lambda ours: ours[None, :, None, None])  # (1, G, 1, 1), ours (G,)


def ban_sizes(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ban` for these weights and settings."""
    read, width = partial(setting, config, project=PROJECT), partial(size, state_dict, project="openvqa's ban")
    return {
        "num_words": width("embedding.weight"),
        "embedding_dim": width("embedding.weight", 1),
        "region_dim": width(f"{ATTENTION}.v_net.{_dropped(config)}.weight_v", 1),
        "num_answers": width("classifer.3.weight_v"),
        "dim": width("rnn.weight_hh_l0", 1),
        "hidden_dim": width(f"{ATTENTION}.h_mat_v", 3),
        "num_glimpses": agreed(config, "GLIMPSE", width(f"{ATTENTION}.h_mat_v", 1), project=PROJECT),
        "classifier_dim": width("classifer.3.weight_v", 1),
        "dropout": read("DROPOUT_R", float),
        "classifier_dropout": read("CLASSIFER_DROPOUT_R", float),
    }


def ban_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of BAN."""
    names, place = NameTable(), _dropped(config)
    names.tensor("question_encoder.embedding.embed.weight", "embedding.weight")
    names.recurrence("question_encoder.recurrences", "rnn")

    def add_pair(ours: str, theirs: str) -> None:
        add_weight_norm(names, f"{ours}.question", f"{theirs}.q_net.{place}")
        add_weight_norm(names, f"{ours}.regions", f"{theirs}.v_net.{place}")

    add_pair("coattention.logits", ATTENTION)
    names.tensor("coattention.logits.weight_v", f"{ATTENTION}.h_mat_v", H_MAT)
    names.tensor("coattention.logits.weight_g", f"{ATTENTION}.h_mat_g")
    names.tensor("coattention.logits.bias", f"{ATTENTION}.h_bias", H_BIAS)
    for glimpse in range(setting(config, "GLIMPSE", int, project=PROJECT)):
        add_pair(f"coattention.pool.{glimpse}", f"backbone.b_net.{glimpse}")
        add_weight_norm(names, f"coattention.project.{glimpse}", f"backbone.q_prj.{glimpse}.{place}")
    add_classifier(names)
    return names


# MFB and MFH


def mfb_sizes(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `mfb` for these weights and settings of MFB or MFH."""
    read, width = partial(setting, config, project=PROJECT), partial(size, state_dict, project="openvqa's mfb")
    num_factors = read("MFB_K", int)
    joint_dim = width("backbone.i_att.mfb.proj_i.weight") // num_factors
    return {
        "num_words": width("embedding.weight"),
        "embedding_dim": width("embedding.weight", 1),
        "region_dim": width("backbone.i_att.mfb.proj_i.weight", 1),
        "num_answers": width("proj.weight"),
        "dim": width("lstm.weight_hh_l0", 1),
        "hidden_dim": width("backbone.q_att.mlp.fc.linear.weight"),
        "joint_dim": agreed(config, "MFB_O", joint_dim, project=PROJECT),
        "num_factors": num_factors,
        "num_blocks": len(_blocks(config)),
        "question_glimpses": width("backbone.q_att.mlp.linear.weight"),
        "region_glimpses": width("backbone.i_att.mlp.linear.weight"),
        "dropout": read("DROPOUT_R", float),
    }


def mfb_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of MFB and MFH."""
    names = NameTable()
    names.tensor("question_encoder.embedding.embed.weight", "embedding.weight")
    names.recurrence("question_encoder.recurrences", "lstm")
    add_mlp(names, "coattention.question_pooling.score", "backbone.q_att")
    add_mlp(names, "coattention.region_pooling.score", "backbone.i_att")
    blocks = {f"head.blocks.{i}": f"backbone.{name}" for i, name in enumerate(_blocks(config))}
    for ours, theirs in ({"coattention.fuse": "backbone.i_att.mfb"} | blocks).items():
        names.linear(f"{ours}.question", f"{theirs}.proj_q")
        names.linear(f"{ours}.regions", f"{theirs}.proj_i")
    names.linear("head.classify", "proj")
    names.unused += ["adapter.frcn_linear.weight", "adapter.frcn_linear.bias"]
    return names


def _blocks(config: Mapping[str, Any]) -> list[str]:
    """openvqa's names for the blocks of the last pooling."""
    high_order = config["MODEL_USE"] == "mfh" or setting(config, "HIGH_ORDER", bool, project=PROJECT)
    return ["mfh1", "mfh2"] if high_order else ["mfb"]
