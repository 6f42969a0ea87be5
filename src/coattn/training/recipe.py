"""What a task's settings say of optimiser and learning rate: checked, and made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from coattn.training.losses import Reduction, Schedule, Warmup, learning_rate_factor
from coattn.training.parameters import parameter_groups

OPTIMIZERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
}
_FUSED = ("adam", "adamw")


def check_recipe(options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse what cannot be meant, and warn of settings that have no effect.

    Args:
        options: the settings of a `VQATask`.
        parameters: its constructor's, for what a setting is when nobody sets it.

    Raises:
        ValueError: unknown names, or a setting that its schedule needs is missing.
    """
    names = {"reduction": Reduction, "schedule": Schedule, "warmup": Warmup}
    for name, known in {
        "optimizer": tuple(OPTIMIZERS),
        **{key: get_args(kind) for key, kind in names.items()},
    }.items():
        if options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {options[name]!r}")
    schedule = options["schedule"]
    for needing, name in (("step", "decay_epochs"), ("exponential", "decay_steps")):
        if schedule == needing and not options[name]:
            raise ValueError(f"the schedule {needing!r} needs model.{name}")
    no_stairs = "with the schedule 'one_cycle'" if schedule == "one_cycle" else "without warmup_epochs"
    idle = {
        "betas": (options["optimizer"] == "rmsprop", "with the optimizer 'rmsprop'"),
        "decay_epochs": (schedule != "step", f"with the schedule {schedule!r}"),
        "decay_steps": (schedule != "exponential", f"with the schedule {schedule!r}"),
        "decay_rate": (schedule not in ("step", "exponential"), f"with the schedule {schedule!r}"),
        "warmup": (schedule == "one_cycle" or not options["warmup_epochs"], no_stairs),
    }
    for name, (without_effect, why) in idle.items():
        if without_effect and plain(options[name]) != plain(parameters[name].default):
            rank_zero_warn(f"model.{name} {plain(options[name])} has no effect {why}")


def make_optimizer(model: nn.Module, options: Mapping[str, Any], *, fused: bool) -> torch.optim.Optimizer:
    """The optimiser that the settings name, with a group for each learning rate; one kernel, if `fused` and it can."""
    name = options["optimizer"]
    extra: dict[str, Any] = {} if name == "rmsprop" else {"betas": options["betas"]}
    if fused and name in _FUSED:
        extra["fused"] = True
    groups = parameter_groups(model, options["lr"], options["lr_scale"] or {})
    return OPTIMIZERS[name](groups, lr=options["lr"], eps=options["eps"], weight_decay=options["weight_decay"], **extra)


def make_schedule(options: Mapping[str, Any], *, num_steps: float, steps_per_epoch: int) -> Callable[[int], float]:
    """From the number of an optimiser step to the learning rate there, in parts of the peak.

    Args:
        options: the settings of a `VQATask`.
        num_steps: optimiser steps of the whole training; may be infinite.
        steps_per_epoch: optimiser steps of an epoch.

    Raises:
        ValueError: the schedule needs an end, and training has none.
    """
    if not math.isfinite(num_steps) and options["schedule"] in ("cosine", "one_cycle"):
        raise ValueError(f"the schedule {options['schedule']!r} needs an end: set trainer.max_epochs or max_steps")
    num_epochs = num_steps / steps_per_epoch
    bounds = {"decay_epochs": options["decay_epochs"] or [], "warmup_epochs": [options["warmup_epochs"]]}
    for setting, epochs in bounds.items():
        if late := [epoch for epoch in epochs if epoch > num_epochs]:
            rank_zero_warn(f"training ends after {num_epochs:g} epochs, before model.{setting} {late}")

    def factor(step: int) -> float:
        return learning_rate_factor(
            step / steps_per_epoch,
            options["schedule"],
            num_epochs=num_epochs,
            warmup_epochs=options["warmup_epochs"],
            warmup=options["warmup"],
            decay_epochs=tuple(options["decay_epochs"] or ()),
            decay_rate=options["decay_rate"],
            decay_every=(options["decay_steps"] or steps_per_epoch) / steps_per_epoch,
        )

    return factor


def plain(value: Any) -> Any:
    """Tuples and lists alike: a checkpoint and a YAML file spell the same settings differently."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
