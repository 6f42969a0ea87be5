"""Learning rates of their own for parts of a model; a part with none stays as it is."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import nn


def scale_of(name: str, lr_scale: Mapping[str, float]) -> float:
    """The factor of a parameter: that of the longest part in `lr_scale` that holds it, else 1."""
    parts = [part for part in lr_scale if name == part or name.startswith(f"{part}.")]
    return lr_scale[max(parts, key=len)] if parts else 1.0


def freeze_parts(model: nn.Module, lr_scale: Mapping[str, float]) -> None:
    """Let no gradient be computed for what has the factor 0.

    Args:
        model: what is trained.
        lr_scale: factor of the learning rate by part: the name of a module or parameter, as in `named_parameters()`.
            Of a part inside a part the inner one's counts.

    Raises:
        ValueError: there is no such part, or a factor is negative or not finite.
    """
    known = {name for name, _ in [*model.named_modules(), *model.named_parameters()]} - {""}
    for part, scale in lr_scale.items():
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"parts are {', '.join(n for n, _ in model.named_children())}"
            )
            raise ValueError(f"lr_scale: the model has no part {part!r}; {hint}")
        if not 0 <= scale < math.inf:
            raise ValueError(f"lr_scale: the factor of {part!r} must be 0 or more, got {scale}")
    for name, parameter in model.named_parameters():
        if scale_of(name, lr_scale) == 0:
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, lr: float, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """What is trained, as groups for an optimiser: first what has the learning rate `lr`, then the others by factor."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(scale_of(name, lr_scale), []).append(parameter)
    return [{"params": members, "lr": lr * scale} for scale, members in groups.items() if members]
