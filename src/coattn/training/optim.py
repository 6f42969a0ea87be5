"""Optimizer, learning-rate schedule and parameter groups."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from coattn._internal.hints import did_you_mean
from coattn.training.objectives import Reduction

Schedule = Literal["constant", "step", "exponential", "cosine", "one_cycle"]
Warmup = Literal["linear", "stairs"]

_START, _END = (
    1 / 25,
    1 / 25e4,
)  # of the one-cycle schedule, in parts of the peak (Smith & Topin 2017, arXiv 1708.07120)
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
    known = [name for name, _ in [*model.named_modules(), *model.named_parameters()] if name]
    for part, scale in lr_scale.items():
        if part not in known:
            raise ValueError(f"lr_scale: the model has no part {part!r}{did_you_mean(part, known)}")
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


def learning_rate_factor(
    epoch: float,
    schedule: Schedule,
    *,
    num_epochs: float,
    warmup_epochs: float = 0.0,
    warmup: Warmup = "linear",
    decay_epochs: tuple[float, ...] = (),
    decay_rate: float = 0.2,
    decay_every: float = 1.0,
) -> float:
    """The learning rate at a point of training, in parts of the one asked for (the peak).

    Args:
        epoch: epochs trained so far, fractions included.
        schedule: after the warm-up, "constant"; "step", times `decay_rate` at each of `decay_epochs`; "exponential",
            smoothly times `decay_rate` in each `decay_every` epochs, counted from the start; or "cosine", down to 0.
            "one_cycle" goes up from 1/25 and down to 1/250000 of the peak, both as cosines.
        num_epochs: epochs of the whole training.
        warmup_epochs: epochs of the way up.
        warmup: "linear" from 0, or in "stairs": of W epochs the first has 1/(W+1) of the peak, the next 2/(W+1), and so
            on, as openvqa has it for W = 3. (For every other W its code leaves these stairs: it passes the peak, up to
            three times as high, or jumps there from half of it. That fault is not reproduced.) "one_cycle" has its own.
        decay_epochs: see "step".
        decay_rate: see "step" and "exponential".
        decay_every: see "exponential".

    Raises:
        ValueError: unknown schedule or warm-up.
    """
    left = max(num_epochs - warmup_epochs, 1e-9)
    way = min(max((epoch - warmup_epochs) / left, 0.0), 1.0)
    if schedule == "one_cycle":
        if epoch < warmup_epochs:
            return _cosine(_START, 1.0, epoch / warmup_epochs)
        return _cosine(1.0, _END, way)
    height = _warmup(epoch, warmup_epochs, warmup)
    if schedule == "constant":
        return height
    if schedule == "step":
        return height * decay_rate ** sum(epoch >= bound for bound in decay_epochs)
    if schedule == "exponential":
        return height * decay_rate ** (epoch / decay_every)
    if schedule == "cosine":
        return height * _cosine(1.0, 0.0, way)
    raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}, got {schedule!r}")


def _warmup(epoch: float, warmup_epochs: float, kind: Warmup) -> float:
    if kind not in get_args(Warmup):
        raise ValueError(f"warmup must be one of {', '.join(get_args(Warmup))}, got {kind!r}")
    if epoch >= warmup_epochs:
        return 1.0
    return (math.floor(epoch) + 1) / (warmup_epochs + 1) if kind == "stairs" else epoch / warmup_epochs


def _cosine(start: float, end: float, way: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2
