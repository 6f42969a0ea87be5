"""Build the model of a preset by name, and choose how it is executed while it trains."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from coattn._internal.hints import did_you_mean
from coattn.models import GENERATORS, PRESETS
from coattn.nn import CoAttentionStack, VQAGenerator, VQAModel
from coattn.text.encoders import FinetunedQuestionEncoder
from coattn.training.settings import TextEncoderSettings


def build_model(
    preset: str,
    sizes: dict[str, Any],
    *,
    num_words: int | None,
    question_dim: int | None,
    region_dim: int,
    num_answers: int | None = None,
    num_answer_words: int | None = None,
) -> VQAModel | VQAGenerator:
    """The model of a preset, by name.

    Args:
        preset: name in `coattn.models.PRESETS` or `GENERATORS`.
        sizes: the preset's own arguments.
        num_words: size of the question vocabulary, or None ...
        question_dim: ... with token embeddings of this width.
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary, for a model that chooses its answer ...
        num_answer_words: ... or that of the words of answers, for one that writes it.

    Raises:
        ValueError: unknown preset or argument (the message names the nearest), or a value that does not fit.
    """
    presets: dict[str, Any] = PRESETS | GENERATORS
    if preset not in presets:
        raise ValueError(f"there is no preset {preset!r}{did_you_mean(preset, presets)}")
    given = {"num_words": num_words, "question_dim": question_dim, "region_dim": region_dim}
    if preset in GENERATORS:
        given["num_answer_words"] = num_answer_words
    else:
        given["num_answers"] = num_answers
    kind = "words" if preset in GENERATORS else "choices"
    if given.get("num_answer_words", num_answers) is None:
        raise ValueError(f"a model of the preset {preset!r} answers in {kind}; set data.answers.kind to {kind}")
    known = [name for name in inspect.signature(presets[preset]).parameters if name not in given]
    for name in sizes:
        if name in given:
            raise ValueError(f"model.{name} follows from the data; remove it from the sizes of the model")
        if name not in known:
            raise ValueError(f"the preset {preset!r} has no argument {name!r}{did_you_mean(name, known)}")
    try:
        return presets[preset](**sizes, **given)
    except TypeError as error:
        raise ValueError(f"the preset {preset!r} cannot be built with {sizes}: {error}") from error


def add_text_encoder(model: VQAModel | VQAGenerator, config: str | None, settings: TextEncoderSettings) -> None:
    """Put a text encoder before the question encoder of a model, in place; nothing is changed without one.

    Args:
        model: the model, which reads embeddings of the text encoder's width.
        config: the architecture of the text encoder, see `FinetunedQuestionEncoder`; None if there is none.
        settings: how it is trained.

    Raises:
        ValueError: there are settings without a text encoder, or they do not fit it.
    """
    if config is not None:
        model.question_encoder = FinetunedQuestionEncoder(
            model.question_encoder,
            config=config,
            frozen_layers=settings.frozen_layers,
            dropout=settings.dropout,
        )
    elif settings != TextEncoderSettings():
        raise ValueError("model.text_encoder has settings, but there is no text encoder; set data.text.encoder")


COMPILED_PARTS = ("region_encoder", "coattention", "head")


def compile_parts(model: VQAModel | VQAGenerator, *, backend: Any = "inductor") -> None:
    """Compile the parts of a model, in place, for batches of any size; the names of weights stay.

    Numbers of questions, tokens and regions are symbols from the start, so that the ragged shapes of bucketed batches
    share their graphs: one for each of `COMPILED_PARTS` in training, and one in validation. At most as many again for
    each of these: the first batch has two sizes that are equal by chance; a batch has a single question, token or
    region; the precision is another (that of an export is, and `evaluation.evaluate` leaves it uncompiled). The
    question encoder is left out (torch does not compile recurrences, and would cut the model there), and so is an
    answer decoder. No CUDA graphs: one would have to be recorded for each shape.

    Args:
        model: the model.
        backend: of `torch.compile`.
    """
    for name in COMPILED_PARTS:
        if isinstance(part := getattr(model, name, None), nn.Module):
            part.compile(dynamic=True, backend=backend)


def remember_inputs_only(model: VQAModel | VQAGenerator) -> None:
    """Keep only the inputs of co-attention layers for the backward pass, see
    `CoAttentionStack.checkpoint_activations`.

    Raises:
        ValueError: the model has no stack of layers.
    """
    if not isinstance(model.coattention, CoAttentionStack):
        raise ValueError(
            f"checkpoint_activations is for stacks of co-attention layers, and this model has a "
            f"{type(model.coattention).__name__}; remove it"
        )
    model.coattention.checkpoint_activations = True
