"""Our side: training as `coattn fit` does it, by Lightning, in windows of some steps."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.conventional import Sizes
from benchmarks.machine import synchronise
from coattn import models
from coattn.nn import VQAModel
from coattn.training import VQATask
from coattn.training.data.batches import Batch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
for _text in ("does not have many workers", "LeafSpec", "across ranks is zero", "no `val_dataloader`"):
    warnings.filterwarnings("ignore", f".*{_text}")


class Window(NamedTuple):
    """The seconds of some training steps, and the shape (questions, regions, tokens) of each batch."""

    seconds: float
    shapes: list[tuple[int, int, int]]

    @property
    def rate(self) -> float:
        """Questions per second."""
        return sum(questions for questions, _, _ in self.shapes) / self.seconds


class Training:
    """Trains MCAN with the recipe of the conventional trainer.

    Args:
        data: the batches.
        sizes: of the model.
        precision: of Lightning's Trainer.
        device: "cpu" or "cuda".
        compile: by `torch.compile`.
        checkpoint: with checkpointed activations.
        parts: batches whose gradients are accumulated for a step.
        devices: processes.
    """

    def __init__(
        self,
        data: LightningDataModule | None,
        sizes: Sizes,
        *,
        precision: str,
        device: str,
        compile: bool = False,
        checkpoint: bool = False,
        parts: int = 1,
        devices: int = 1,
    ) -> None:
        self.data, self.precision, self.device, self.parts, self.devices = data, precision, device, parts, devices
        self.batch: Batch | None = None
        self.task = VQATask(
            make_model(sizes),
            reduction="sum",
            optimizer="adam",
            lr=1e-4,
            eps=1e-9,
            weight_decay=0.0,
            schedule="constant",
            compile=compile,
            checkpoint_activations=checkpoint,
        )

    def window(self, steps: int, *, warmup: int = 0, repeated: bool = False) -> Window:
        """Train `warmup` steps and then measure `steps`; with `repeated` on one batch of the last window again."""
        gc.collect()  # the last trainer is a reference cycle, which keeps the state of its optimizer
        clock = _Clock(self.device, warmup * self.parts)
        most = {"max_steps": warmup + steps, "max_epochs": warmup + steps, "accumulate_grad_batches": self.parts}
        trainer = make_trainer(self.device, self.precision, clock, devices=self.devices, **most)
        if repeated:
            assert self.batch is not None, "needs a window with the real loader first"
            trainer.fit(self.task, train_dataloaders=_Repeated(self.batch, (warmup + steps) * self.parts))
        else:
            trainer.fit(self.task, datamodule=self.data)
            self.batch = clock.batch
        return Window(clock.seconds, clock.shapes)


def make_trainer(device: str, precision: str, *callbacks: Callback, **options: Any) -> Trainer:
    """Lightning's Trainer with nothing around the steps but these callbacks."""
    return Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        precision=precision,  # type: ignore[arg-type]
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


class _Clock(Callback):
    """Times the batches after the first `warmup`; waits for the device only where it starts and stops."""

    def __init__(self, device: str, warmup: int) -> None:
        self.device, self.warmup, self.count = device, warmup, 0
        self.shapes: list[tuple[int, int, int]] = []
        self.batch: Batch | None = None
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.warmup == 0:
            self._start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.batch = batch
        self.count += 1
        if self.count == self.warmup:
            self._start()
        elif self.count > self.warmup:
            self.shapes.append((*batch.regions.shape[:2], batch.question.shape[1]))
            if trainer.global_step == trainer.max_steps:
                synchronise(self.device)
                self.seconds = time.perf_counter() - self.began

    def _start(self) -> None:
        synchronise(self.device)
        self.began = time.perf_counter()


class _Repeated:
    """One batch, again and again."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch for _ in range(self.count))


def make_model(sizes: Sizes) -> VQAModel:
    """Our MCAN of these sizes."""
    return models.mcan_small(**sizes._asdict())


@cache
def operations(sizes: Sizes, regions: int, tokens: int) -> int:
    """Floating-point operations of the matrix products of a forward pass, for one question.

    A training step has three times this number, because the gradient of a product is two products.
    """
    with torch.device("meta"):
        model = make_model(sizes)
        question = torch.zeros(1, tokens, dtype=torch.int64)
        rows = torch.zeros(1, regions, sizes.region_dim)
    with FlopCounterMode(display=False) as counter:
        model(question, rows, question_mask=question == 0, region_mask=rows[..., 0] == 0)
    return counter.get_total_flops()
