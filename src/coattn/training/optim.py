"""Optimizer, learning-rate schedule and parameter groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from coattn._internal.hints import did_you_mean
from coattn.training.settings import (
    Loss,
    LossSettings,
    OptimizerSettings,
    Reduction,
    Schedule,
    ScheduleSettings,
    Warmup,
)

# Start and end of the one-cycle schedule as fractions of the peak (Smith & Topin 2017, arXiv 1708.07120).
_START, _END = 1 / 25, 1 / 25e4
OPTIMIZERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
}
_FUSED = ("adam", "adamw")


def check_recipe(loss: LossSettings, optimizer: OptimizerSettings, schedule: ScheduleSettings) -> None:
    """Refuse a recipe that cannot work, and warn of settings without effect.

    Raises:
        ValueError: an unknown name, or a setting that the schedule needs is missing.
    """
    for name, value, known in (
        ("loss.name", loss.name, get_args(Loss)),
        ("loss.reduction", loss.reduction, get_args(Reduction)),
        ("optimizer.name", optimizer.name, tuple(OPTIMIZERS)),
        ("schedule.name", schedule.name, get_args(Schedule)),
        ("schedule.warmup", schedule.warmup, get_args(Warmup)),
    ):
        if value not in known:
            raise ValueError(f"model.{name} must be one of {', '.join(known)}, got {value!r}")
    for needing, needed in (("step", "decay_epochs"), ("exponential", "decay_steps")):
        if schedule.name == needing and not getattr(schedule, needed):
            raise ValueError(f"the schedule {needing!r} needs model.schedule.{needed}")
    with_schedule = f"with the schedule {schedule.name!r}"
    one_cycle = schedule.name == "one_cycle"
    for name, group, without_effect, why in (
        ("betas", optimizer, optimizer.name == "rmsprop", "with the optimizer 'rmsprop'"),
        ("decay_epochs", schedule, schedule.name != "step", with_schedule),
        ("decay_steps", schedule, schedule.name != "exponential", with_schedule),
        ("decay_rate", schedule, schedule.name not in ("step", "exponential"), with_schedule),
        (
            "warmup",
            schedule,
            one_cycle or not schedule.warmup_epochs,
            with_schedule if one_cycle else "without warmup_epochs",
        ),
    ):
        value = plain(getattr(group, name))
        if without_effect and value != plain(getattr(type(group)(), name)):
            section = "optimizer" if group is optimizer else "schedule"
            rank_zero_warn(f"model.{section}.{name} {value} has no effect {why}")


def make_optimizer(model: nn.Module, settings: OptimizerSettings, *, fused: bool) -> torch.optim.Optimizer:
    """The optimizer, with a parameter group for each learning rate; as one fused kernel if `fused` and available."""
    extra: dict[str, Any] = {} if settings.name == "rmsprop" else {"betas": settings.betas}
    if fused and settings.name in _FUSED:
        extra["fused"] = True
    groups = parameter_groups(
        model, settings.lr, settings.lr_scale or {}, decay_norms_and_biases=settings.decay_norms_and_biases
    )
    return OPTIMIZERS[settings.name](
        groups, lr=settings.lr, eps=settings.eps, weight_decay=settings.weight_decay, **extra
    )


def make_schedule(settings: ScheduleSettings, *, num_steps: float, steps_per_epoch: int) -> Callable[[int], float]:
    """A function from the number of an optimizer step to the learning rate there, as a fraction of the peak.

    Args:
        settings: those of the task.
        num_steps: optimizer steps of the whole training; may be infinite.
        steps_per_epoch: optimizer steps of an epoch.

    Raises:
        ValueError: the schedule needs an end, and training has none.
    """
    if not math.isfinite(num_steps) and needs_end(settings):
        raise ValueError(f"the schedule {settings.name!r} needs an end: set trainer.max_epochs or max_steps")
    num_epochs = num_steps / steps_per_epoch
    for name, epochs in (("decay_epochs", settings.decay_epochs or []), ("warmup_epochs", [settings.warmup_epochs])):
        if late := [epoch for epoch in epochs if epoch > num_epochs]:
            rank_zero_warn(f"training ends at epoch {num_epochs:g}, before model.schedule.{name} {late}")

    def factor(step: int) -> float:
        return learning_rate_factor(
            step / steps_per_epoch,
            settings.name,
            num_epochs=num_epochs,
            warmup_epochs=settings.warmup_epochs,
            warmup=settings.warmup,
            decay_epochs=tuple(settings.decay_epochs or ()),
            decay_rate=settings.decay_rate,
            decay_every=(settings.decay_steps or steps_per_epoch) / steps_per_epoch,
        )

    return factor


def needs_end(settings: ScheduleSettings) -> bool:
    """Whether the learning rate depends on the length of the training."""
    return settings.name in ("cosine", "one_cycle")


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
    """Freeze the parts whose factor of the learning rate is 0.

    Args:
        model: the model to train.
        lr_scale: factor of the learning rate by part: the name of a module or parameter, as in `named_parameters()`.
            Of a part inside a part the inner one's counts.

    Raises:
        ValueError: there is no such part, or a factor is negative or not finite.
    """
    parts = [*model.named_children(), *model.named_modules(), *model.named_parameters()]
    known = dict.fromkeys(name for name, _ in parts if name)
    for part, scale in lr_scale.items():
        if part not in known:
            hint = did_you_mean(part, known)
            raise ValueError(f"model.optimizer.lr_scale: the model has no part {part!r}{hint}")
        if not 0 <= scale < math.inf:
            raise ValueError(f"model.optimizer.lr_scale: the factor of {part!r} must be 0 or more, got {scale}")
    for name, parameter in model.named_parameters():
        if scale_of(name, lr_scale) == 0:
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module, lr: float, lr_scale: Mapping[str, float], *, decay_norms_and_biases: bool = True
) -> list[dict[str, Any]]:
    """The trainable parameters as groups for an optimizer, those with the learning rate `lr` first.

    Args:
        model: the model to train.
        lr: learning rate.
        lr_scale: see `freeze_parts`.
        decay_norms_and_biases: if false, biases and parameters with fewer than two dimensions (those of norms) form
            groups without weight decay.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = decay_norms_and_biases or (parameter.ndim > 1 and not name.endswith("bias"))
            groups.setdefault((scale_of(name, lr_scale), decays), []).append(parameter)
    return [
        {"params": members, "lr": lr * scale} | ({} if decays else {"weight_decay": 0.0})
        for (scale, decays), members in groups.items()
        if members
    ]


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
    """The learning rate at a point of training, as a fraction of its peak.

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
