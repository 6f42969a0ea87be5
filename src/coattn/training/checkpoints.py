"""Checkpoints: when they are written, and how they reach the disk.

Weights that are not finite are never saved: `check_weights` stops the training.
"""

from __future__ import annotations

import io
import math
import os
import re
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn._internal.files import atomic_path, require_regular
from coattn._internal.hints import did_you_mean
from coattn.training.stop_signals import SIGNALS, Stopped

BEST, LAST = "best.ckpt", "last.ckpt"
_COMPLETE = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers", "VQADataModule")
_BETTER = {"max": "high", "min": "low"}
_TIME_LIMIT = timedelta(minutes=10)  # for a device that does not respond


def read_checkpoint(path: str | os.PathLike[str], *, complete: bool = False) -> dict[str, Any]:
    """Read a checkpoint, running no code from it.

    Args:
        path: the file.
        complete: whether it must hold everything that is needed to resume training.

    Raises:
        ValueError: it is not a checkpoint, is damaged (the checksums are verified), or is not complete.
        OSError: it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"wrong checksum of {damaged}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can raise anything in zipfile and torch.load
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: not a readable checkpoint ({reason}); use another one, such as {BEST} or {LAST} in its folder"
        ) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path}: not a checkpoint of training (it has no state_dict)")
    if complete and (missing := [name for name in _COMPLETE if name not in checkpoint]):
        raise ValueError(f"{path}: training cannot resume from this checkpoint, it lacks {', '.join(missing)}")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and renames it: a kill leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`.

        It is serialized in memory first: on a full disk torch.save reports a wrong position instead of the cause.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(path) as partial, partial.open("wb") as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read `path`; see `read_checkpoint`."""
        return read_checkpoint(path)


class DivergedError(ValueError):
    """Training made weights that are not finite."""


class Checkpoints(Checkpoint):
    """Keeps `best.ckpt` and `last.ckpt`, both always with finite weights.

    `last.ckpt` is written after each validation, at the end of each epoch, every `every_minutes` in between, and when a
    signal stops the run. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 let the step finish on all devices; a second Ctrl-C
    quits at once.

    Args:
        folder: Folder of the checkpoints. The default is `checkpoints` under the trainer's `default_root_dir`.
        monitor: Logged metric that decides which checkpoint is the best. Of equally good checkpoints the last is kept.
        mode: Whether a high ("max") or a low ("min") metric is better. The default follows from the name: a loss or an
            error should be low.
        every_minutes: Maximum number of minutes between two checkpoints.
    """

    def __init__(
        self,
        folder: str | None = None,
        monitor: str = "val/accuracy",
        mode: Literal["max", "min"] | None = None,
        every_minutes: float = 10.0,
    ) -> None:
        if mode not in ("max", "min", None):
            raise ValueError(f"checkpoints.mode must be 'max' or 'min', got {mode!r}")
        usual: Literal["max", "min"] = "min" if re.search("loss|error", monitor) else "max"
        if mode is not None and mode != usual:
            rank_zero_warn(f"checkpoints.mode is {mode!r}, but {monitor} is usually better when it is {_BETTER[usual]}")
        self.folder, self.monitor, self.mode, self.every_minutes = folder, monitor, mode or usual, every_minutes
        self.best_score: float | None = None
        self._saved_at, self._saved_step = 0.0, -1
        self._group: Any = None

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far."""
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and defer signals to the end of a step."""
        self._saved_at = time.monotonic()
        if not trainer.strategy.broadcast((self._folder(trainer) / BEST).exists()):
            self.best_score = None  # a run that resumes another run's checkpoint has no best one yet
        if trainer.world_size > 1:
            # Its tensors are on the CPU, so that agreeing on whether to stop does not wait for a GPU.
            self._group = torch.distributed.new_group(backend="gloo", timeout=_TIME_LIMIT)
        SIGNALS.deferred = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due, or if training ends within an epoch."""
        # A validation or the end of the epoch saves afterwards; a run resumed from here would skip the validation.
        if self._boundary_follows(trainer, batch_idx):
            return
        due = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        stopped, save = self._agreed(SIGNALS.received, int(due))
        if stopped or save or trainer.global_step == trainer.max_steps:
            self._save(trainer, LAST)
        self._stop(stopped)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to validate weights that are not finite."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            check_weights(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save `last.ckpt`, and `best.ckpt` if the score is the best so far.

        Raises:
            ValueError: `monitor` is not logged.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        score = trainer.callback_metrics.get(self.monitor)
        if score is None:
            logged = sorted({*trainer.callback_metrics, "train/loss"})
            raise ValueError(
                f"checkpoints.monitor is {self.monitor!r}, which is not logged{did_you_mean(self.monitor, logged)}"
            )
        if trainer.sanity_checking:
            return
        if self._is_best(float(score)):
            self.best_score = float(score)
            self._save(trainer, BEST)
        self._save(trainer, LAST)
        self._stop(*self._agreed(SIGNALS.received)[:1])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save `last.ckpt`, unless this step is saved already."""
        if self._saved_step != trainer.global_step:
            self._save(trainer, LAST)
        self._stop(*self._agreed(SIGNALS.received)[:1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals stop the command at once."""
        SIGNALS.deferred = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save `last.ckpt` of a run with nothing left to train, so that its folder is complete."""
        if self._saved_step < 0:
            self._save(trainer, LAST)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let signals stop the command at once."""
        SIGNALS.deferred = False

    def _save(self, trainer: Trainer, name: str) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        check_weights(trainer.lightning_module)
        trainer.save_checkpoint(self._folder(trainer) / name, weights_only=False)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir, "checkpoints") if self.folder is None else Path(self.folder)

    def _is_best(self, score: float) -> bool:
        if not math.isfinite(score):
            return False
        if self.best_score is None:
            return True
        return score >= self.best_score if self.mode == "max" else score <= self.best_score

    def _agreed(self, *flags: int) -> list[int]:
        """The maximum of each flag over all devices, which all call this after the same step."""
        if self._group is None:
            return list(flags)
        values = torch.tensor(flags)
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX, group=self._group)
        return values.tolist()

    def _stop(self, number: int) -> None:
        if number:
            raise Stopped(number)

    def _boundary_follows(self, trainer: Trainer, batch_idx: int) -> bool:
        if trainer.is_last_batch:
            return True
        if not trainer.enable_validation or trainer.val_check_batch is None:
            return False
        index = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
        return (index + 1) % trainer.val_check_batch == 0


def check_weights(module: LightningModule) -> None:
    """Check that all weights are finite; this waits for the device.

    Raises:
        DivergedError: some are not finite. The message has the first step whose loss was not finite.
    """
    if bool(torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all()):
        return
    step = int(getattr(module, "first_bad_step", torch.tensor(-1)))
    when = f"the loss of optimizer step {step + 1} is not finite" if step >= 0 else "some weights are not finite"
    raise DivergedError(
        f"training diverged: {when}; lower model.optimizer.lr, set trainer.gradient_clip_val, or check the features of "
        "the training images (coattn inspect)"
    )
