"""Table rows for the parts that several models of openvqa share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from coattn.nn import VQAModel

from .names import NameTable

PROJECT = "openvqa"


class Importer(NamedTuple):
    """The conversion of one model of openvqa.

    Attributes:
        preset: our preset of the model.
        sizes: `(state_dict, config)` -> the preset's arguments, except those about padding.
        names: `(config)` -> the table of parameter names.
    """

    preset: Callable[..., VQAModel]
    sizes: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Any]]
    names: Callable[[Mapping[str, Any]], NameTable]


def add_norm(names: NameTable, ours: str, theirs: str) -> None:
    """Add openvqa's layer norm, our `UnbiasedLayerNorm`."""
    names.tensors(ours, theirs, {"weight": "a_2", "bias": "b_2"})


def add_attention(names: NameTable, ours: str, theirs: str) -> None:
    """Add openvqa's `MHAtt`, our `MultiHeadAttention`."""
    for our_part, their_part in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "merge")):
        names.linear(f"{ours}.{our_part}", f"{theirs}.linear_{their_part}")


def add_mlp(names: NameTable, ours: str, theirs: str) -> None:
    """Add openvqa's `MLP`, our `MLP`."""
    names.linear(f"{ours}.hidden", f"{theirs}.mlp.fc.linear")
    names.linear(f"{ours}.output", f"{theirs}.mlp.linear")


def add_ends(names: NameTable) -> None:
    """Add the parts that MCAN and MMNasNet share: LSTM, attentional reduction of each side, norm, classifier."""
    names.tensor("question_encoder.embedding.embed.weight", "embedding.weight")
    names.recurrence("question_encoder.recurrences", "lstm")
    for ours, theirs in (("question_pooling", "attflat_lang"), ("region_pooling", "attflat_img")):
        add_mlp(names, f"head.{ours}.score", theirs)
        names.linear(f"head.{ours}.merge", f"{theirs}.linear_merge")
    add_norm(names, "head.normalize", "proj_norm")
    names.linear("head.classify", "proj")
