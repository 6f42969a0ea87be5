"""The ways in which our training is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.context import Context


@dataclass(frozen=True)
class Way:
    """How a model is trained.

    Attributes:
        precision: "bf16" or "float32".
        compile: by `torch.compile`.
        checkpoint: with checkpointed activations.
        data: settings of `VQADataModule`.
        everywhere: measured on all data, and not on 100 regions alone.
    """

    precision: str
    compile: bool = False
    checkpoint: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    everywhere: bool = True


def our_ways(context: Context) -> dict[str, Way]:
    """By the name that tables give them; the one to take first."""
    plain = {f"coattn, {precision}": Way(precision) for precision in context.precisions}
    less = {"coattn, bf16, less memory": Way("bf16", checkpoint=True, everywhere=False)}
    if context.device != "cuda":
        return plain | (less if "bf16" in context.precisions else {})
    others: dict[str, dict[str, Any]] = {
        "coattn, features pinned": {"residency": "pinned"},
        "coattn, features mapped": {"residency": "mmap"},
        "coattn, batches of 64": {"batch_size": 64},
    }
    fastest = {"coattn, bf16 compiled": Way("bf16", compile=True)}
    return (
        fastest | {name: Way("bf16", True, data=data, everywhere=False) for name, data in others.items()} | less | plain
    )
