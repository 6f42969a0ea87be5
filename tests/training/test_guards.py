"""Training refuses or survives faults: numbers that are not finite, damaged checkpoints, options of the Trainer."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from tiny import change, settings, write_data

from coattn.cli import main
from coattn.serialization.directory import load_directory
from coattn.training.checkpoints import AtomicCheckpointIO, Checkpoints, read_checkpoint
from coattn.training.cli.options import REFUSED
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import check_finite
from coattn.training.task import VQATask

DIMS = {"num_words": 8, "question_dim": None, "region_dim": 8, "num_answers": 5}

# What each option of the Trainer means here: "lightning" as Lightning documents it, "ours" otherwise, or "refused".
TRAINER = {
    **dict.fromkeys(("accelerator", "devices", "num_nodes", "precision", "fast_dev_run", "max_epochs"), "lightning"),
    **dict.fromkeys(("min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches"), "lightning"),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"), "lightning"),
    **dict.fromkeys(("log_every_n_steps", "enable_progress_bar", "enable_model_summary", "deterministic"), "lightning"),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"), "lightning"),
    **dict.fromkeys(("benchmark", "inference_mode", "profiler", "detect_anomaly", "sync_batchnorm"), "lightning"),
    **dict.fromkeys(("callbacks", "logger", "plugins", "model_registry", "enable_autolog_hparams"), "lightning"),
    # The loaders divide batches over devices by themselves.
    **dict.fromkeys(("use_distributed_sampler", "enable_checkpointing", "default_root_dir"), "ours"),
    # A limited evaluation is a fixed random sample; overfitting shows the same batches in each epoch.
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"), "ours"),
    "strategy": "ours",  # fsdp and deepspeed are refused
    **dict.fromkeys(REFUSED, "refused"),
}


def test_every_option_of_the_trainer_is_considered() -> None:
    assert set(inspect.signature(Trainer).parameters) == set(TRAINER)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.barebones", "true"], "trainer.barebones is not supported"),
        (["--trainer.reload_dataloaders_every_n_epochs", "1"], "trainer.reload_dataloaders_every_n_epochs is not"),
        *(
            (["--trainer.strategy", name], f"trainer.strategy {name!r} is not supported; use ddp")
            for name in ("fsdp", "fsdp_cpu_offload", "deepspeed_stage_2")
        ),
        *(
            (["--trainer.strategy", f"lightning.pytorch.strategies.{name}"], f"{name}' is not supported; use ddp")
            for name in ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
        ),
        (["--checkpoints.monitor", "val/acc"], "which is not logged; did you mean 'val/accuracy'?"),
        (["--safe", "--trainer.callbacks", "os.path.Foo"], "names the class os.path.Foo; --safe allows only"),
    ],
)
def test_options_are_refused_by_name(
    arguments: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_diverged_run_keeps_nothing_that_is_not_finite(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"val_questions": [], "val_annotations": []}
    changed = change(config, tmp_path / "c.yaml", {"data": {"files": files}, "model": {"lr": 1e30}})
    assert main(["fit", "--config", str(changed)]) == 2
    assert "training diverged: the loss of optimizer step 2 is not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").rglob("*.ckpt"))


class Spoil(Callback):
    """Makes a weight NaN in the second epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: VQATask, *_: object) -> None:
        if trainer.current_epoch == 1:
            next(pl_module.model.parameters()).data.fill_(float("nan"))


def test_the_last_good_model_is_exported(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure = VQATask.configure_callbacks
    monkeypatch.setattr(VQATask, "configure_callbacks", lambda self: [*configure(self), Spoil()])
    assert main(["fit", "--config", str(config)]) == 2
    assert "The last good weights" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 0
    model = load_directory(tmp_path / "run" / "model").model
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_answers_that_are_not_numbers_are_refused(tiny_data: Path) -> None:
    records = VQADataModule(**settings(tiny_data, tiny_data)["data"]).split("val").records
    values = np.ones((len(records), 2))
    check_finite(records, values)
    values[3, 1] = np.nan
    image = records[3].image_id
    with pytest.raises(ValueError, match=rf"1 of 13 questions is not a number, first for question 3003 .*'{image}'"):
        check_finite(records, values)


def test_nan_is_never_the_best() -> None:
    checkpoints = Checkpoints(monitor="val/loss")
    assert checkpoints.mode == "min"
    assert not checkpoints._is_best(float("nan"))
    assert checkpoints._is_best(0.5)
    with pytest.warns(UserWarning, match="val/loss is usually better when it is low"):
        Checkpoints(monitor="val/loss", mode="max")


def test_damaged_checkpoints_are_one_message(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1000)}}, whole)
    content = bytearray(whole.read_bytes())
    place = content.index(torch.ones(8).numpy().tobytes())
    content[place] ^= 1
    for name, damaged in {"empty": b"", "cut": content[:900], "flipped": bytes(content)}.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}\.ckpt: not a readable checkpoint"):
            read_checkpoint(path)
    with pytest.raises(ValueError, match="cannot resume from this checkpoint, it lacks epoch, global_step"):
        read_checkpoint(whole, complete=True)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*last\.ckpt'"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


class Positions(Callback):
    """Collects the positions of training batches by epoch, and of validation."""

    def __init__(self) -> None:
        self.train: dict[int, list[list[int]]] = {}
        self.val: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: VQATask, outputs: object, batch: object, *_: int) -> None:
        self.train.setdefault(trainer.current_epoch, []).append(sorted(batch.positions.tolist()))  # type: ignore[attr-defined]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: VQATask, outputs: object, batch: object, *_: int
    ) -> None:
        self.val += batch.positions.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"overfit_batches": 2}, {"limit_val_batches": 1}], ids=str)
def test_limited_batches(options: dict, tiny_data: Path, tmp_path: Path) -> None:
    chosen, seen = settings(tiny_data, tmp_path), Positions()
    task = VQATask(chosen["model"]["sizes"], preset="modular", **DIMS)
    data = VQADataModule(**chosen["data"] | {"eval_batch_size": 5})
    quiet = {"logger": False, "enable_checkpointing": False, "callbacks": [seen], "max_epochs": 2}
    Trainer(**chosen["trainer"] | quiet | options).fit(task, data)
    if "overfit_batches" in options:
        assert seen.train[0] == seen.train[1]
        assert len(seen.train[0]) == 2
    else:
        first, second = seen.val[: len(seen.val) // 2], seen.val[len(seen.val) // 2 :]
        assert first == second, "the sample is fixed"
        largest = np.lexsort((data.split("val").num_tokens, data.split("val").num_regions))[-5:]
        assert set(first) != set(largest.tolist())


def test_questions_with_sides_are_not_mirrored(tmp_path: Path) -> None:
    data = write_data(tmp_path, flips=True)
    path = data / "train_questions.json"
    path.write_text(path.read_text().replace("is it red?", "is the left one red?"))
    module = VQADataModule(**settings(data, data)["data"] | {"flips": True})
    with pytest.warns(UserWarning, match="22 of 44 training questions or answers name left or right"):
        module.setup("fit")
    order, plain = module.order, module.split("train").images
    for epoch in range(3):
        assert np.array_equal(order.images(epoch)[order.sided], plain[order.sided])
    assert not np.array_equal(order.images(0), plain)


def test_another_length_is_warned_of_and_recorded(config: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    with pytest.warns(UserWarning, match="trainer.max_epochs was 1 before step 6, is 2, so the learning rate leaps"):
        assert main(["fit", "--config", str(config), "--trainer.max_epochs", "2", "--resume"]) == 0
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["trainer_settings"]
    assert saved["changes"] == ["trainer.max_epochs was 1 before step 6, is 2"]
    assert "trainer.max_epochs was 1" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_an_interrupted_run_becomes_a_model(config: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    shutil.rmtree(tmp_path / "run" / "model")
    assert main(["fit", "--config", str(config), "--resume", "--export-only"]) == 0
    load_directory(tmp_path / "run" / "model")


def test_a_preset_of_the_command_line_drops_sizes_it_does_not_take(
    config: Path, tmp_path: Path, lightning_log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"region_positions": 16, "boxes": True}
    changed = change(
        config, tmp_path / "c.yaml", {"model": {"sizes": sizes, "lr_scale": {"region_encoder.features": 0.5}}}
    )
    arguments = ["--model.preset", "question_only", "--trainer.max_steps", "1"]
    assert main(["fit", "--config", str(changed), *arguments]) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert saved["preset"] == "question_only"
    assert not saved["sizes"].keys() & sizes.keys()
    assert saved["optimizer"].get("lr_scale") is None
    assert "does not take model.sizes.boxes" in lightning_log.text
    wrong = change(config, tmp_path / "w.yaml", {"model": {"sizes": {"num_head": 2}}})
    assert main(["fit", "--config", str(wrong), "--trainer.default_root_dir", str(tmp_path / "w")]) == 2
    assert "no argument 'num_head'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:validation")
def test_validation_questions_of_training_are_counted(config: Path, tiny_data: Path, tmp_path: Path) -> None:
    files = {f"val_{kind}": str(tiny_data / f"train_{kind}.json") for kind in ("questions", "annotations")}
    changed = change(config, tmp_path / "c.yaml", {"data": {"files": files}, "trainer": {"max_epochs": 1}})
    with pytest.warns(UserWarning, match="validation: 44 of 44 val questions are also in train, about the same image"):
        assert main(["fit", "--config", str(changed)]) == 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "44 of 44 val questions are also in train, about the same image" in card
