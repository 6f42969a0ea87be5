"""The ways in which our training is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.context import Context

LESS_MEMORY, ACCUMULATED = "coattn, bf16, less memory", "coattn, bf16, accumulated"


@dataclass(frozen=True)
class Way:
    """A way to train a model.

    Attributes:
        precision: "bf16" or "float32".
        compile: whether `torch.compile` is used.
        checkpoint: whether activations are checkpointed.
        parts: equal parts of a batch whose gradients are accumulated.
        data: settings of `VQADataModule`.
        everywhere: whether it is measured on all data, and not on 100 regions alone.
    """

    precision: str
    compile: bool = False
    checkpoint: bool = False
    parts: int = 1
    data: Mapping[str, Any] = field(default_factory=dict)
    everywhere: bool = True


def our_ways(context: Context) -> dict[str, Way]:
    """Our ways by their name in tables. The first one is the recommended one."""
    on_cpu = context.device == "cpu"
    plain = {f"coattn, {precision}": Way(precision, everywhere=on_cpu) for precision in context.precisions}
    less = {
        LESS_MEMORY: Way("bf16", checkpoint=True, everywhere=False),
        ACCUMULATED: Way("bf16", parts=8, everywhere=False),
    }
    if on_cpu:
        return plain | (less if "bf16" in context.precisions else {})
    others: dict[str, dict[str, Any]] = {
        "coattn, features pinned": {"residency": "pinned"},
        "coattn, features mapped": {"residency": "mmap"},
        "coattn, batches of 64": {"batch_size": 64},
    }
    compiled = {name: Way("bf16", compile=True, data=data, everywhere=False) for name, data in others.items()}
    return {"coattn, bf16 compiled": Way("bf16", compile=True)} | compiled | less | plain
