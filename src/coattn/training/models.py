"""The model of a preset, by name, as a YAML asks for it."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from coattn.models import GENERATORS, PRESETS
from coattn.nn import VQAGenerator, VQAModel


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
        raise ValueError(f"there is no preset {preset!r}{_hint(preset, list(presets))}")
    given = {"num_words": num_words, "question_dim": question_dim, "region_dim": region_dim}
    if preset in GENERATORS:
        given["num_answer_words"] = num_answer_words
    else:
        given["num_answers"] = num_answers
    kind = "words" if preset in GENERATORS else "choices"
    if given.get("num_answer_words", num_answers) is None:
        raise ValueError(f"a model of the preset {preset!r} answers in {kind}; set data.answers to {kind}")
    known = [name for name in inspect.signature(presets[preset]).parameters if name not in given]
    for name in sizes:
        if name in given:
            raise ValueError(f"model.{name} follows from the data; remove it from the sizes of the model")
        if name not in known:
            raise ValueError(f"the preset {preset!r} has no argument {name!r}{_hint(name, known)}")
    try:
        return presets[preset](**sizes, **given)
    except TypeError as error:
        raise ValueError(f"the preset {preset!r} cannot be built with {sizes}: {error}") from error


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
