"""Exact resuming: checkpoints also keep random generators and the gradients of a step that is not complete."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn.training.optim import needs_end

_LENGTH = {"max_epochs", "max_steps"}


class ExactResume(Callback):
    """Makes resuming exact: checkpoints also keep random generators, and gradients that are not yet applied."""

    def __init__(self) -> None:
        self.changes: list[str] = []  # of the trainer's settings since training began
        self._loaded: dict[str, Any] | None = None
        self._saved_settings: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the generators of all devices, and the gradients if the checkpoint is within an accumulated step."""
        gradients = {}
        if (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            gradients = {
                name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }
        checkpoint["trainer_settings"] = {**trainer_settings(trainer), "changes": self.changes}
        checkpoint["exact_resume"] = {
            "generators": _gather(_generators(pl_module.device), trainer),
            "gradients": gradients,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the saved state until training begins, because random numbers may be drawn before."""
        self._loaded = checkpoint.get("exact_resume")
        self._saved_settings = checkpoint.get("trainer_settings")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the saved state, and warn of changed settings of the trainer."""
        self._compare(trainer, pl_module)
        if self._loaded is None:
            return
        saved = self._loaded["generators"]
        state = saved[trainer.global_rank % len(saved)]
        torch.set_rng_state(state["cpu"])
        if pl_module.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], pl_module.device)
        parameters = dict(pl_module.named_parameters())
        for name, gradient in self._loaded["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name])
        self._loaded = None

    def _compare(self, trainer: Trainer, module: LightningModule) -> None:
        """Warn of changed settings of the trainer, because the weights depend on both."""
        saved, self._saved_settings = self._saved_settings, None
        if saved is None:
            return
        self.changes[:] = saved.get("changes", [])
        ours = trainer_settings(trainer)
        changed = {name for name in ours if name in saved and saved[name] != ours[name]}
        schedule = getattr(module, "schedule", None)
        if schedule is None or not needs_end(schedule):
            changed -= _LENGTH
        for name in sorted(changed):
            jump = ", so the learning rate leaps to another curve of the schedule" if name in _LENGTH else ""
            change = f"trainer.{name} was {saved[name]} before step {trainer.global_step}, is {ours[name]}"
            rank_zero_warn(f"{change}{jump}; the result differs from that of a run with either setting")
            self.changes.append(change)


def trainer_settings(trainer: Trainer) -> dict[str, Any]:
    """The settings of a trainer that influence the weights, apart from the order of batches; plain values."""
    algorithm = trainer.gradient_clip_algorithm
    return {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "precision": str(trainer.precision),
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": None if algorithm is None else str(algorithm),
    }


def _generators(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _gather(value: Any, trainer: Trainer) -> list[Any]:
    """The values of all devices, on each of them."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
