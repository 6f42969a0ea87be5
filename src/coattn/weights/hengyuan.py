"""Convert checkpoints of hengyuan-hu's bottom-up-attention-vqa (commit 3925206): top-down attention in two forms.

The layouts are taken from its source; no weights that it trained have been tried. The project does not save its
settings: sizes are taken from the weights, the form of the attention from their names, dropout from the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from coattn import models
from coattn.nn import VQAModel

from .names import NameTable, filled, size, tensors

PROJECT = "hengyuan-hu's bottom-up-attention-vqa"
WRAPPER = "module."  # its training script saves the model inside nn.DataParallel
Attention = Literal["product", "concatenation"]
ATTENTIONS: dict[Attention, dict[str, str]] = {
    "product": {"question": "q_proj.main.0", "regions": "v_proj.main.0", "output": "linear"},
    "concatenation": {"hidden": "nonlinear.main.0", "output": "linear"},
}
BUILDERS: dict[Attention, str] = {"product": "baseline0_newatt", "concatenation": "baseline0"}


def from_hengyuan(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    *,
    repaired: bool = False,
    num_tokens: int | None = None,
    num_regions: int | None = None,
    padding_id: int | None = None,
) -> VQAModel:
    """Convert a checkpoint of hengyuan-hu, `baseline0` or `baseline0_newatt`; the model is in eval mode.

    Token ids are the project's: its words from 0, then one id for padding. Regions are raw features.

    Args:
        state_dict: the model's weights, under the project's names, with or without "module." before each.
        config: the arguments of its training script, if known; `model` and `num_hid` are compared with the weights.
        repaired: mask padding everywhere; questions are padded on the right, with any id. By default the model is
            *faithful* and reads padding in front of questions, as the project's loader makes it.
        num_tokens: for the faithful model: questions are padded on the right, and the model moves the padding in front
            of each and extends it to this length (14 in the project). None: questions are padded in front with
            `padding_id`, as by the project's loader, and their mask is ignored.
        num_regions: number of regions after padding or cutting, 36 in the project; None keeps the given number.
        padding_id: the padding row of the word embedding; None for the last row, as in the project.

    Raises:
        ValueError: the weights belong to another model, or disagree with `config`.
    """
    weights = tensors({name.removeprefix(WRAPPER): value for name, value in state_dict.items()})
    width, attention = partial(size, weights, project=PROJECT), _attention(weights)
    num_words, dim = width("w_emb.emb.weight"), width("q_emb.rnn.weight_hh_l0", 1)
    for key, found in (("model", BUILDERS[attention]), ("num_hid", dim)):
        if config is not None and config.get(key, found) != found:
            raise ValueError(f"the settings of {PROJECT}: {key} is {config[key]!r}, but the weights are of {found!r}")
    model = models.butd_hengyuan(
        num_words=num_words,
        embedding_dim=width("w_emb.emb.weight", 1),
        region_dim=width("v_net.main.0.weight_v", 1),
        num_answers=width("classifier.main.3.weight_v"),
        attention=attention,
        dim=dim,
        classifier_dim=width("classifier.main.3.weight_v", 1),
        dropout=0.2 if attention == "product" else 0.0,
        classifier_dropout=0.5,
        padding_id=num_words - 1 if padding_id is None else padding_id,
        faithful=not repaired,
        padded_tokens=num_tokens,
        padded_regions=num_regions,
    )
    return filled(model, hengyuan_names(weights), weights, project=PROJECT)


def hengyuan_names(theirs: Iterable[str]) -> NameTable:
    """The table of names of the model with the tensors `theirs`, a state dict or its names without "module."."""
    names = NameTable()
    names.tensor("question_encoder.embedding.embed.weight", "w_emb.emb.weight")
    names.recurrence("question_encoder.recurrences", "q_emb.rnn")
    parts = {
        **{f"coattention.score.{ours}": f"v_att.{name}" for ours, name in ATTENTIONS[_attention(theirs)].items()},
        "head.question": "q_net.main.0",
        "head.regions": "v_net.main.0",
        "head.classify.hidden": "classifier.main.0",
        "head.classify.output": "classifier.main.3",
    }
    for ours, name in parts.items():
        names.tensors(ours, name, ("weight_v", "weight_g", "bias"))
    return names


def _attention(theirs: Iterable[str]) -> Attention:
    return "product" if any(name.startswith("v_att.v_proj.") for name in theirs) else "concatenation"
