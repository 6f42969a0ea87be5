"""Reports of a run while it trains: a progress bar, a table of epochs, and the peak of its memory."""

from __future__ import annotations

import logging
import math
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from coattn._internal.process_memory import peak_of_process
from coattn._internal.progress import tell

# Messages of Lightning that appear at each start and that a user cannot act on.
_NOISE = (
    "Tip:",  # advertisements for other products
    "Loading `train_dataloader` to estimate",
    "Experiment logs directory",  # the two loggers share a folder
    "The number of training batches",  # a small number of batches is fine
    "across ranks is zero",  # and so is a run without validation
    "callbacks used to create the checkpoint need to be provided",  # not to validate, test or predict
    "LeafSpec)` is deprecated",
    "instantiate_classes",
    "Seed set to",  # it is in config.yaml
    "TPU available",
)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the training loss."""

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        """Add the loss, which is fetched from the device only when the bar is drawn; leave out the loggers' version."""
        usual = super().get_metrics(trainer, pl_module)
        loss = trainer.callback_metrics.get("train/loss") if trainer.training else None
        shown = {} if loss is None else {"train/loss": float(loss)}
        return shown | {name: value for name, value in usual.items() if name != "v_num"}


class Epochs(Callback):
    """Collects a row for each epoch: number, mean training loss, validation metrics and seconds.

    Args:
        told: whether each row is also written to stderr as a line, for an output that is not a terminal.
    """

    def __init__(self, *, told: bool) -> None:
        self.told = told
        self.rows: list[dict[str, float]] = []
        self._began = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of this epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        total: Any = getattr(pl_module, "loss_sum", math.nan)
        loss = float(total) / max(int(getattr(pl_module, "loss_count", 1)), 1)  # type: ignore[arg-type]
        seconds = time.monotonic() - self._began
        self.rows.append({"epoch": trainer.current_epoch, "train/loss": loss, **metrics, "seconds": seconds})
        if self.told and trainer.is_global_zero:
            tell("  ".join(f"{name} {_cell(name, value)}" for name, value in self.rows[-1].items()))

    def table(self) -> str:
        """The rows as text; of more than 20 epochs the first and the last ten."""
        if not self.rows:
            return ""
        names = [
            name for name in ("epoch", "train/loss", "val/loss", "val/accuracy", "seconds") if name in self.rows[-1]
        ]
        lines = ["".join(f"{name:>14}" for name in names)]
        rows: list[dict[str, float] | None] = [*self.rows]
        if len(rows) > 20:
            rows = [*rows[:10], None, *rows[-10:]]
        for row in rows:
            cells = ["..."] if row is None else [_cell(name, row.get(name)) for name in names]
            lines.append("".join(f"{cell:>14}" for cell in cells))
        return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    digits = {"epoch": 0, "seconds": 1, "val/accuracy": 2}.get(name, 4)
    return f"{value:.{digits}f}"


class PeakMemory(Callback):
    """Logs the peak memory of training, at its end, as `peak_memory_gb` (1e9 bytes).

    On a GPU this is the memory of tensors on the first device; otherwise the memory of the process since its start.
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
    """The peak memory so far, in 1e9 bytes; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_of_process()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the messages of Lightning that a user cannot act on, and show warnings in the form of our errors."""
    usual_format = warnings.formatwarning
    loggers = [
        logging.getLogger(f"lightning.{name}") for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed")
    ]
    for logger in loggers:
        logger.addFilter(_is_of_interest)
    warnings.formatwarning = _format_warning  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", f".*{re.escape(message)}")
            yield
    finally:
        warnings.formatwarning = usual_format
        for logger in loggers:
            logger.removeFilter(_is_of_interest)


def _format_warning(message: Warning | str, *_: Any) -> str:
    """A warning as one line, without its place in the code."""
    return f"coattn: warning: {message}\n"


def _is_of_interest(record: logging.LogRecord) -> bool:
    return not any(message in record.getMessage() for message in _NOISE)
