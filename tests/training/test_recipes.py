"""The published training recipes, against what their authors' code did (tests/golden)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from coattn._internal.files import read_json
from coattn.training.data.batches import Batch
from coattn.training.optim import learning_rate_factor
from coattn.training.task import VQATask
from coattn.weights import from_openvqa

GOLDEN = Path(__file__).parents[1] / "golden"
BATCH_SIZE = 4


class Recorder(Callback):
    """The loss that each optimizer step minimized, and its learning rate."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.lrs: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.lrs.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, default_root_dir=folder, **quiet, **options)


def make_batch(question: Tensor, regions: Tensor, targets: Tensor) -> Batch:
    rows, answers = targets.nonzero(as_tuple=True)
    return Batch(
        question=question,
        question_mask=question != 0,
        regions=regions,
        region_mask=regions.abs().sum(dim=-1) > 0,
        boxes=torch.zeros(*regions.shape[:2], 4),
        image_sizes=torch.ones(len(regions), 2),
        images=torch.arange(len(regions)),
        target_rows=rows,
        target_answers=answers,
        target_scores=targets[rows, answers],
        positions=torch.arange(len(question)),
        divisor=float(len(question)),
    )


def test_mcan_trains_as_openvqa_does(tmp_path: Path) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "openvqa_mcan_training.npz").items()}
    weights = {name.removeprefix("sd/"): value for name, value in golden.items() if name.startswith("sd/")}
    inputs = [golden[f"in/{name}"] for name in ("ques_ix", "frcn_feat", "target")]
    config = read_json(GOLDEN / "openvqa_mcan.cfg.json") | {"MODEL_USE": "mcan", "DROPOUT_R": 0.0}
    task = VQATask(
        from_openvqa(weights, config),
        loss="bce",
        reduction="sum",
        optimizer="adam",
        lr=1e-3,
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.0,
        schedule="step",
        warmup_epochs=3,
        warmup="stairs",
        decay_epochs=[5, 6],
        decay_rate=0.2,
    )
    batches = [make_batch(*parts) for parts in zip(*(value.split(BATCH_SIZE) for value in inputs), strict=True)]
    recorder = Recorder()
    trainer(tmp_path, max_epochs=7, callbacks=[recorder]).fit(task, DataLoader(batches, batch_size=None))
    np.testing.assert_array_equal(np.array(recorder.lrs, np.float32), golden["out/lrs"].numpy())
    np.testing.assert_allclose(recorder.losses, golden["out/losses"].numpy(), rtol=1e-4)
    with torch.inference_mode():
        logits = task.eval()(make_batch(*inputs))
    torch.testing.assert_close(logits, golden["out/final_logits"], rtol=0, atol=1e-3)


def openvqa_schedules() -> list[dict[str, Any]]:
    schedules: list[dict[str, Any]] = read_json(GOLDEN / "openvqa_lr_schedule.json")
    return schedules


def our_factors(theirs: dict[str, Any]) -> list[float]:
    """Our learning rates for one of their settings, with as many steps per epoch, in parts of the peak."""
    steps_per_epoch = theirs["data_size"] // theirs["batch_size"]  # they drop the last, smaller batch
    return [
        learning_rate_factor(
            step / steps_per_epoch,
            "step",
            num_epochs=theirs["max_epoch"],
            warmup_epochs=theirs["warmup_epoch"],
            warmup="stairs",
            decay_epochs=tuple(theirs["lr_decay_list"]),
            decay_rate=theirs["lr_decay_r"],
        )
        for step in range(len(theirs["lr_per_step"]))
    ]


@pytest.mark.parametrize("theirs", openvqa_schedules(), ids=lambda x: f"{x['data_size']}-W{x['warmup_epoch']}")
def test_stairs_are_openvqas_where_those_are_right(theirs: dict[str, Any]) -> None:
    ours = np.array(our_factors(theirs))
    factors = np.array(theirs["lr_per_step"]) / theirs["lr_base"]
    num_epochs, warmup = theirs["max_epoch"], theirs["warmup_epoch"]
    epochs = np.arange(len(ours)) * num_epochs // len(ours)
    assert [ours[epochs == epoch].min() for epoch in range(warmup)] == [(i + 1) / (warmup + 1) for i in range(warmup)]
    assert ours.max() == 1
    after = epochs > warmup
    np.testing.assert_allclose(ours[after], factors[after], rtol=1e-12)
    differing = np.flatnonzero(~np.isclose(ours, factors, rtol=1e-12))
    if warmup == 3:
        # Their bounds are at whole multiples of N / batch size, the fraction of a batch included, which they drop.
        fraction = theirs["data_size"] / theirs["batch_size"] % 1
        assert len(differing) == sum(int(fraction * epoch) for epoch in (1, 2, 3))
    else:
        reached = [1, 2, 3] if warmup == 0 else [0.5, 1, 1.5] if warmup == 1 else [1 / 6, 2 / 6, 3 / 6]
        steps = [factor for factor, _ in itertools.groupby(factors[~after])]
        np.testing.assert_allclose(steps, [*reached, 1], rtol=1e-12)
        assert len(differing) > 0


class GivenGradients(VQATask):
    """Takes each batch for the gradient of its only weight, and keeps what the weight becomes."""

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self.weights: list[Tensor] = []

    def on_fit_start(self) -> None:
        """There are no regions."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.model.weight * batch).sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.weights.append(self.model.weight.detach().clone())


def weights_after(start: Tensor, gradients: Tensor, folder: Path, **recipe: Any) -> Tensor:
    """The weight (steps, ...) after each step of a recipe that is given the gradients (steps, ...)."""
    linear = torch.nn.Linear(*start.shape, bias=False)
    linear.weight.data.copy_(start)
    task = GivenGradients(linear, **recipe)
    trainer(folder, max_epochs=1).fit(task, DataLoader(gradients, batch_size=None))
    return torch.stack(task.weights)


def test_dcns_adam_is_adamw(tmp_path: Path) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "dcn_adam.npz").items()}
    recipe = {"optimizer": "adamw", "lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.1, "schedule": "constant"}
    weights = weights_after(golden["params"][0], golden["grads"], tmp_path, **recipe)
    torch.testing.assert_close(weights, golden["params"][1:], rtol=0, atol=1e-6)


def test_hiecoatts_rmsprop_decays_with_every_step(tmp_path: Path) -> None:
    gradients = torch.tensor([[[0.3]], [[-2.0]], [[1e-9]]])
    recipe = {"optimizer": "rmsprop", "lr": 4e-4, "eps": 1e-8, "weight_decay": 0.0}
    decay = {"schedule": "exponential", "decay_rate": 0.1, "decay_steps": 2}  # as much in 2 steps as there in 360,000
    weights = weights_after(torch.zeros(1, 1), gradients, tmp_path, **recipe, **decay)
    expected, weight, square = [], 0.0, 0.0
    for step, gradient in enumerate(gradients.flatten().tolist()):
        square = 0.99 * square + 0.01 * gradient**2
        weight -= 4e-4 * 0.1 ** (step / 2) * gradient / (square**0.5 + 1e-8)
        expected.append(weight)
    np.testing.assert_allclose(weights.flatten(), expected, rtol=1e-6)
