"""The settings of a data module: which go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn.features.residency.placement import Residency
from coattn.training.dataset import Targets


def check_settings(options: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant, and warn of settings that have no effect.

    Raises:
        ValueError: the message names the setting.
    """
    choices = {"targets": get_args(Targets), "answers": ("choices", "words"), "residency": get_args(Residency)}
    for name, known in choices.items():
        if options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {options[name]!r}")
    if options["answers"] == "words" and options["max_answers"] is not None:
        raise ValueError(f"max_answers is {options['max_answers']}, but with answers 'words' none is chosen; remove it")
    if (options["residency_budget"] or 0) < 0:
        raise ValueError(f"residency_budget is {options['residency_budget']} GB, it must not be negative")
    split = (options["tokenizer"], options["min_word_count"])
    if options["question_embeddings"] is not None and (*split, options["max_tokens"]) != ("plain", 1, None):
        rank_zero_warn("data.tokenizer, min_word_count and max_tokens have no effect on question_embeddings")
    if options["text_encoder"] is not None and split != ("plain", 1):
        rank_zero_warn("data.tokenizer and min_word_count have no effect on the pieces that a text_encoder reads")
