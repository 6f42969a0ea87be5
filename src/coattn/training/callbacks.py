"""Checkpoints: when they are written, what makes going on from them exact, and how they reach the disk."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from coattn._internal.files import atomic_path
from coattn._internal.process_memory import peak_of_process

BEST, LAST = "best.ckpt", "last.ckpt"
_CLOCK_STEPS = 32  # several devices ask the first one's clock only so often: asking costs a broadcast


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, running no code from it.

    Raises:
        ValueError: it is no checkpoint, or damaged.
        OSError: it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path}: not a checkpoint of training (it has no state_dict)")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and renames it: a kill leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`."""
        with atomic_path(path) as partial:
            torch.save(checkpoint, partial)


class ExactResume(Callback):
    """Keeps in each checkpoint what else decides the next step: random generators, and gradients not yet applied."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the generators of all devices, and the gradients if the checkpoint cuts an accumulated step."""
        gradients = {}
        if (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            gradients = {
                name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }
        checkpoint["exact_resume"] = {
            "generators": _gather(_generators(pl_module.device), trainer),
            "gradients": gradients,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember them: what runs between loading and training may draw random numbers too."""
        self._loaded = checkpoint.get("exact_resume")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back."""
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


class PeakMemory(Callback):
    """Logs once, at the end of training, the most memory that it took at a time, as `peak_memory_gb` (1e9 bytes).

    With a GPU that is what tensors took there, of the first device; else what the process took, from its start.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it."""
        peak = peak_memory(pl_module.device)
        if peak is not None:
            for logger in trainer.loggers:
                logger.log_metrics({"peak_memory_gb": peak}, step=trainer.global_step)


def peak_memory(device: torch.device) -> float | None:
    """The most memory at a time so far, in 1e9 bytes; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_of_process()


class InterruptedTrainingError(Exception):
    """Ctrl-C or SIGTERM came, and the checkpoint is written."""


class Checkpoints(Checkpoint):
    """Keeps `best.ckpt` and `last.ckpt`.

    The last one is written after each validation, at the end of each epoch, every `every_minutes` in between, and when
    the run is interrupted: Ctrl-C and SIGTERM let the step finish, a second Ctrl-C quits at once. (On several devices
    Ctrl-C quits at once: they could not agree on the step.)

    Args:
        folder: where to; `checkpoints` under the trainer's `default_root_dir` if not given.
        monitor: the validation metric that makes a checkpoint the best. Of equals the later one is kept.
        mode: whether the metric should be high or low.
        every_minutes: longest time between two checkpoints, validation apart.
    """

    def __init__(
        self,
        folder: str | None = None,
        monitor: str = "val/accuracy",
        mode: Literal["max", "min"] = "max",
        every_minutes: float = 10.0,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        self.folder, self.monitor, self.mode, self.every_minutes = folder, monitor, mode, every_minutes
        self.best_score: float | None = None
        self._saved_at, self._saved_step = 0.0, -1
        self._interrupted = False
        self._previous_handler: Any = None

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and take over Ctrl-C."""
        self._saved_at = time.monotonic()
        if not trainer.strategy.broadcast((self._folder(trainer) / BEST).exists()):
            self.best_score = None  # a run that goes on from another run's checkpoint has none of its own
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to, or training ends here in the midst of an epoch."""
        # A validation or the end of the epoch saves by itself, and a run resumed from here would leave it out.
        if not self._boundary_follows(trainer, batch_idx) and self._is_due(trainer):
            self._save(trainer, LAST)
            self._stop_if_interrupted(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, and the best if it is that."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        score = trainer.callback_metrics.get(self.monitor)
        if score is not None and self._is_best(float(score)):
            self.best_score = float(score)
            self._save(trainer, BEST)
        self._save(trainer, LAST)
        self._stop_if_interrupted(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, unless this very step is saved already."""
        if self._saved_step != trainer.global_step:
            self._save(trainer, LAST)
        self._stop_if_interrupted(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give Ctrl-C back."""
        self._release()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last of a run that found nothing left to train, so that its folder is as whole as any other's."""
        if self._saved_step < 0:
            self._save(trainer, LAST)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        self._release()

    def _save(self, trainer: Trainer, name: str) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self._folder(trainer) / name, weights_only=False)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir, "checkpoints") if self.folder is None else Path(self.folder)

    def _is_best(self, score: float) -> bool:
        if self.best_score is None:
            return True
        return score >= self.best_score if self.mode == "max" else score <= self.best_score

    def _is_due(self, trainer: Trainer) -> bool:
        if self._is_interrupted(trainer) or trainer.global_step == trainer.max_steps:
            return True
        if trainer.world_size > 1 and trainer.global_step % _CLOCK_STEPS:
            return False
        return trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60 * self.every_minutes)

    def _boundary_follows(self, trainer: Trainer, batch_idx: int) -> bool:
        if trainer.is_last_batch:
            return True
        if not trainer.enable_validation or trainer.val_check_batch is None:
            return False
        index = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
        return (index + 1) % trainer.val_check_batch == 0

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        print("\ncoattn: saving after this step; press Ctrl-C again to quit at once", file=sys.stderr, flush=True)

    def _stop_if_interrupted(self, trainer: Trainer) -> None:
        if self._is_interrupted(trainer):
            raise InterruptedTrainingError

    def _is_interrupted(self, trainer: Trainer) -> bool:
        return trainer.world_size == 1 and (self._interrupted or trainer.received_sigterm)

    def _release(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None


def _generators(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _gather(value: Any, trainer: Trainer) -> list[Any]:
    """The value of each device; on all of them."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
