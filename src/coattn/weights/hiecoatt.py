"""Convert weights of HieCoAttenVQA under plain names. The layouts are taken from its source.

The authors' released files are written by Lua and hold each level as one flat vector. They are not read here, and the
conversion has not been tried on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coattn import models
from coattn.nn import VQAModel

from .names import Layout, NameTable, filled, size, tensors

PROJECT = "HieCoAttenVQA"
PREFIX = "w/"
LEVELS = ("word", "phrase", "ques")


def _gates_swapped(tensor: Tensor) -> Tensor:
    """Reorder an LSTM's gates from input, forget, output, candidate to input, forget, candidate, output, or back."""
    first, second, third, fourth = tensor.chunk(4)
    return torch.cat((first, second, fourth, third))


GATES = Layout(_gates_swapped, _gates_swapped)
# Their layout is (words of the window, out, in), ours is (out, in, words of the window).
WINDOW = Layout(lambda theirs: theirs.permute(1, 2, 0), lambda ours: ours.permute(2, 0, 1))


def from_hiecoatt(
    weights: Mapping[str, Tensor],
    *,
    repaired: bool = False,
    num_tokens: int | None = None,
    num_regions: int | None = None,
) -> VQAModel:
    """Convert weights of HieCoAtt, parallel or alternating according to their names; the model is in eval mode.

    Token ids are the project's (0 is padding, on the right); regions are its raw features.

    Args:
        weights: tensors or arrays by name (`word.embed.weight`, `ques.i2h_1.weight`, ...), with or without `w/` before
            each name.
        repaired: mask padding everywhere. By default the model is *faithful*, see `models.hiecoatt.hiecoatt`.
        num_tokens: number of tokens of each question after padding or cutting, 26 in the project; it changes the result
            of parallel co-attention. None keeps the given number.
        num_regions: number of regions after padding or cutting; None keeps the given number.

    Raises:
        ValueError: the weights belong to another model, or their sizes do not fit together.
    """
    weights = tensors({name.removeprefix(PREFIX): value for name, value in weights.items()})
    is_alternating = _is_alternating(weights)
    attention = "word.ques1.weight" if is_alternating else "word.ques_embed.weight"
    model = models.PRESETS["hiecoatt_alternating" if is_alternating else "hiecoatt_parallel"](
        num_words=size(weights, "word.embed.weight", project=PROJECT),
        dim=size(weights, "word.embed.weight", 1, project=PROJECT),
        region_dim=size(weights, "word.cnn.weight", 1, project=PROJECT),
        attention_dim=size(weights, attention, project=PROJECT),
        hidden_dim=size(weights, "atten.h1.weight", project=PROJECT),
        joint_dim=size(weights, "atten.h3.weight", project=PROJECT),
        num_answers=size(weights, "atten.out.weight", project=PROJECT),
        recurrent_layers=_num_layers(weights),
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    return filled(model, hiecoatt_names(weights), weights, project=PROJECT)


def hiecoatt_names(weights: Mapping[str, Tensor]) -> NameTable:
    """The table of names, without `w/`, of the model with these weights.

    Raises:
        ValueError: the weights belong to another model.
    """
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    names = NameTable()
    names.tensor("question_encoder.embedding.embed.weight", "word.embed.weight")
    names.linear("region_encoder.features", "word.cnn")
    for window, theirs in enumerate(("uni", "bi", "tri")):
        names.tensor(f"question_encoder.windows.{window}.weight", f"phrase.{theirs}.weight", WINDOW)
        names.tensor(f"question_encoder.windows.{window}.bias", f"phrase.{theirs}.bias")
    for layer in range(_num_layers(weights)):
        for side, theirs in (("ih", "i2h"), ("hh", "h2h")):
            for kind in ("weight", "bias"):
                ours = f"question_encoder.recurrences.{layer}.0.{kind}_{side}_l0"
                names.tensor(ours, f"ques.{theirs}_{layer + 1}.{kind}", GATES)
    add_pooling = _add_alternating if _is_alternating(weights) else _add_parallel
    for place, level in enumerate(LEVELS):
        add_pooling(names, f"coattention.poolings.{place}", level)
        names.linear(f"head.levels.{place}", f"atten.h{place + 1}")
    names.linear("head.classify", "atten.out")
    return names


def _add_parallel(names: NameTable, ours: str, theirs: str) -> None:
    names.linear(f"{ours}.region_affinity", f"{theirs}.img_corr")
    names.linear(f"{ours}.question_features", f"{theirs}.ques_embed")
    names.linear(f"{ours}.region_features", f"{theirs}.img_embed")
    names.linear(f"{ours}.question_score", f"{theirs}.ques_atten")
    names.linear(f"{ours}.region_score", f"{theirs}.img_atten")


def _add_alternating(names: NameTable, ours: str, theirs: str) -> None:
    for number, (step, features, guide) in enumerate(
        (("first", "ques1", None), ("second", "img2", "ques2"), ("third", "ques3", "img3")), 1
    ):
        names.linear(f"{ours}.{step}.features", f"{theirs}.{features}")
        if guide is not None:
            names.linear(f"{ours}.{step}.guide", f"{theirs}.{guide}")
        names.linear(f"{ours}.{step}.score", f"{theirs}.score{number}")


def _is_alternating(weights: Mapping[str, Tensor]) -> bool:
    return "word.ques1.weight" in weights


def _num_layers(weights: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("ques.i2h_") and name.endswith(".weight") for name in weights)
