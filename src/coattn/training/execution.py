"""How a model is run while it trains: compiled, or with less memory. Neither changes what it computes."""

from __future__ import annotations

from typing import Any

from torch import nn

from coattn.nn import CoAttentionStack, VQAGenerator, VQAModel

COMPILED_PARTS = ("region_encoder", "coattention", "head")


def compile_parts(model: VQAModel | VQAGenerator, *, backend: Any = "inductor") -> None:
    """Compile the parts of a model, in place, for batches of any size; the names of weights stay.

    Numbers of questions, tokens and regions are symbols from the start, so that the ragged shapes of bucketed batches
    share their graphs: one for each of `COMPILED_PARTS` in training, and one in validation. At most so many again for
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


def checkpoint_activations(model: VQAModel | VQAGenerator) -> None:
    """Let the co-attention layers remember their inputs only, see `CoAttentionStack.checkpoint_activations`.

    Raises:
        ValueError: the model has no stack of layers.
    """
    if not isinstance(model.coattention, CoAttentionStack):
        raise ValueError(
            f"checkpoint_activations is for stacks of co-attention layers, and this model has a "
            f"{type(model.coattention).__name__}; remove it"
        )
    model.coattention.checkpoint_activations = True
