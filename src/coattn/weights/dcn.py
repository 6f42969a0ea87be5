"""Convert checkpoints of DCN. The layouts are taken from its source; the released files have not been tried.

DCN has two models; the one on regions, `DCNWithRCNN`, is converted. Its checkpoints hold no word vectors: like the
project, the converted model uses frozen GloVe vectors from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from coattn import models
from coattn.nn import VQAModel

from .names import NameTable, filled, setting, size, tensors

PROJECT = "DCN"


def from_dcn(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    repaired: bool = False,
    num_tokens: int | None = None,
    num_regions: int | None = None,
    word_vectors: Tensor | None = None,
) -> VQAModel:
    """Convert a checkpoint of DCN on regions; the model is in eval mode and reads word vectors (GloVe's).

    Args:
        state_dict: the model's weights, under the project's names.
        config: the arguments of the project's command line, as a plain dict: `num_layers`, `num_seq`,
            `num_dense_attn`, `dropout` and `droprnn` are used. The other sizes are taken from the weights.
        repaired: mask padding everywhere. By default the model is *faithful*, which differs for empty images only, see
            `models.dcn`.
        num_tokens: number of tokens to which each question is padded or cut; None keeps the given number.
        num_regions: number of regions to which each image is padded or cut; None keeps the given number.
        word_vectors: (V, E), the word vectors by id, for a model that reads ids; None for one that reads vectors.

    Raises:
        ValueError: a setting is missing, or the weights or word vectors belong to another model or have other sizes.
    """
    state_dict = tensors(state_dict)
    read, width = partial(setting, config, project=PROJECT), partial(size, state_dict, project=PROJECT)
    embedding_dim = width("lang_extract.rnn.weight_ih_l0", 1)
    if word_vectors is not None and word_vectors.shape[-1] != embedding_dim:
        raise ValueError(
            f"the word vectors are {word_vectors.shape[-1]} wide, but {PROJECT}'s checkpoint reads {embedding_dim}"
        )
    model = models.dcn(
        num_words=None if word_vectors is None else len(word_vectors),
        question_dim=embedding_dim if word_vectors is None else None,
        embedding_dim=embedding_dim,
        recurrent_dim=2 * width("lang_extract.init_hidden", 1),
        recurrent_layers=read("num_layers", int),
        dim=width("lang_extract.linear.weight"),
        region_dim=width("img_extract.linear.weight", 1),
        image_dim=width("img_extract.linear.weight"),
        num_layers=read("num_seq", int),
        num_heads=read("num_dense_attn", int),
        num_nothing=width("dense_coattn.dcn_layers.0.dense_coattn.nones.0"),
        num_glimpses=width("predict.summaries.0.linear.2.weight"),
        num_answers=width("predict.predict.3.weight"),
        dropout=read("dropout", float),
        recurrent_dropout=read("droprnn", float),
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    names = dcn_names(config)
    if word_vectors is not None:
        names.tensor("question_encoder.embedding.embed.weight", "word_vectors")
        state_dict = {**state_dict, "word_vectors": word_vectors}
    return filled(model, names, state_dict, project=PROJECT)


def dcn_names(config: Mapping[str, Any]) -> NameTable:
    """The table of names of the model that `config` describes.

    Raises:
        ValueError: a setting is missing.
    """
    names = NameTable()
    names.tensor("question_encoder.recurrences.start", "lang_extract.init_hidden")
    for layer in range(setting(config, "num_layers", int, project=PROJECT)):
        for backward in (False, True):
            names.recurrence("question_encoder.recurrences", "lang_extract.rnn", layer=layer, backward=backward)
    names.linear("question_encoder.merge", "lang_extract.linear")
    names.linear("region_encoder.features", "img_extract.linear")
    for layer in range(setting(config, "num_seq", int, project=PROJECT)):
        add_dense_layer(names, f"coattention.layers.{layer}", f"dense_coattn.dcn_layers.{layer}")
    # The project's first side is the image.
    for side, ours in enumerate(("region_pooling", "question_pooling")):
        names.linear(f"head.{ours}.score.hidden", f"predict.summaries.{side}.linear.0")
        names.linear(f"head.{ours}.score.output", f"predict.summaries.{side}.linear.2")
    names.linear("head.classify.hidden", "predict.predict.0")
    names.linear("head.classify.output", "predict.predict.3")
    return names


def add_dense_layer(names: NameTable, ours: str, theirs: str) -> None:
    """Add one layer of the project's stack, our `DenseCoAttention`."""
    for side, name in enumerate(("region", "question")):
        names.tensor(f"{ours}.{name}_affinity.weight", f"{theirs}.dense_coattn.linears.{side}.weight")
        names.tensor(f"{ours}.{name}_nothing", f"{theirs}.dense_coattn.nones.{side}")
        names.linear(f"{ours}.{name}_update", f"{theirs}.linears.{side}.0")
