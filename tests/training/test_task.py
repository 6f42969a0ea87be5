from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from tiny import plain_descent, set_batch_size, settings, small_sizes

from coattn.models import PRESETS
from coattn.nn import VQAModel
from coattn.training.data.module import VQADataModule
from coattn.training.model import build_model
from coattn.training.optim import OPTIMIZERS
from coattn.training.task import VQATask

DIMS = {"num_words": 8, "question_dim": None, "region_dim": 8, "num_answers": 5}


def task_and_data(tiny_data: Path, **changes: object) -> tuple[VQATask, VQADataModule]:
    options = settings(tiny_data, tiny_data)
    torch.manual_seed(0)
    sizes = options["model"].pop("sizes") | {"dropout": 0.0}
    return VQATask(sizes, **DIMS, **options["model"] | changes), VQADataModule(**options["data"])


def trainer(folder: Path, **changes: object) -> Trainer:
    return Trainer(**settings(folder, folder)["trainer"] | {"logger": False, "enable_checkpointing": False} | changes)


def test_one_batch_is_overfit(tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data, schedule="constant", warmup_epochs=0.0, lr=1e-2)
    set_batch_size(data, 44)
    trainer(tmp_path, max_epochs=60, limit_val_batches=0).fit(task, data)
    batch = next(iter(data.train_dataloader()))
    task.eval()
    assert torch.equal(task(batch).argmax(dim=1), batch.targets(5).argmax(dim=1))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "reduction", "lr"), [(4, 2, "mean", 0.1), (3, 4, "mean", 0.1), (3, 4, "sum", 0.01)]
)
def test_accumulated_batches_give_the_gradient_of_the_whole(
    batch_size: int,
    accumulate: int,
    reduction: str,
    lr: float,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "adam", plain_descent)

    def weights(size: int, count: int) -> dict[str, torch.Tensor]:
        task, data = task_and_data(tiny_data, optimizer="adam", lr=lr, reduction=reduction)
        set_batch_size(data, size)
        trainer(tmp_path, max_epochs=2, limit_val_batches=0, accumulate_grad_batches=count).fit(task, data)
        return task.state_dict()

    whole, cut = weights(batch_size * accumulate, 1), weights(batch_size, accumulate)
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_sum_steps_as_far_as_the_mean_times_the_questions(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "adam", plain_descent)
    steps = []
    for reduction in ("mean", "sum"):
        options = {"optimizer": "adam", "schedule": "constant", "warmup_epochs": 0.0, "lr": 0.1}
        task, data = task_and_data(tiny_data, reduction=reduction, **options)
        before = copy.deepcopy(task.state_dict())
        set_batch_size(data, 11)
        trainer(tmp_path, max_steps=1, gradient_clip_val=None, accumulate_grad_batches=4).fit(task, data)
        steps.append({name: value - before[name] for name, value in task.model.named_parameters(prefix="model")})
    for name, step in steps[0].items():
        torch.testing.assert_close(steps[1][name], 44 * step, rtol=1e-3, atol=1e-5)  # 44 times a weight's rounding


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_steps_may_be_given_without_epochs(schedule: str, tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data, schedule=schedule, warmup_epochs=0.0)
    lightning = trainer(tmp_path, max_steps=9, max_epochs=None)
    lightning.fit(task, data)
    assert (lightning.global_step, lightning.current_epoch) == (9, 2)


def test_statistics_come_from_the_training_images(tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data)
    trainer(tmp_path, max_steps=1).fit(task, data)
    rows = torch.cat([torch.from_numpy(data.features.read(index).features) for index in range(9)])
    assert data.features.image_ids[:9] == [f"train/{number}" for number in range(9)]  # type: ignore[union-attr]
    encoder = task.model.region_encoder
    torch.testing.assert_close(encoder.feature_mean, rows.mean(dim=0))
    torch.testing.assert_close(encoder.feature_std, rows.std(dim=0, correction=0))


def test_validation_logs_the_official_accuracy(tiny_data: Path, tmp_path: Path) -> None:
    from coattn.metrics.score import score
    from coattn.training.evaluation.answers import CollectAnswers, results_by_question

    task, data = task_and_data(tiny_data)
    collect = CollectAnswers(len(data.split("val").records))
    lightning = trainer(tmp_path, callbacks=[collect])
    logged = lightning.validate(task, data, verbose=False)[0]["val/accuracy"]
    split = data.split("val")
    official = score(results_by_question(data, "val", collect.numbers), split.records, split.metric).overall
    assert logged == pytest.approx(official, abs=0.005)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "rmsprop"])
@pytest.mark.parametrize("loss", ["bce", "cross_entropy", "kl"])
def test_every_loss_and_optimizer_learns(optimizer: str, loss: str, tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data, optimizer=optimizer, loss=loss, lr=1e-2)
    lightning = trainer(tmp_path, max_epochs=4)
    before = lightning.validate(task, data, verbose=False)[0]["val/loss"]
    lightning.fit(task, data)
    assert lightning.callback_metrics["val/loss"] < 0.8 * before


def test_a_model_of_bricks_trains_and_comes_back(tiny_data: Path, tmp_path: Path) -> None:
    model = build_model("parallel", {"dim": 8, "num_heads": 2}, **DIMS)
    task = VQATask(model, lr=1e-2)
    lightning = trainer(tmp_path, max_epochs=1)
    lightning.fit(task, task_and_data(tiny_data)[1])
    lightning.save_checkpoint(tmp_path / "model.ckpt")
    fresh = build_model("parallel", {"dim": 8, "num_heads": 2}, **DIMS)
    again = VQATask.load_from_checkpoint(tmp_path / "model.ckpt", model=fresh, weights_only=True)
    assert again.hparams["optimizer"]["lr"] == 1e-2
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in task.state_dict().items())


def test_a_preset_comes_back_from_its_checkpoint_alone(tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data)
    lightning = trainer(tmp_path, max_steps=2)
    lightning.fit(task, data)
    lightning.save_checkpoint(tmp_path / "preset.ckpt")
    again = VQATask.load_from_checkpoint(tmp_path / "preset.ckpt", weights_only=True)
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(task.eval()(batch), again.eval()(batch))


def test_compiling_keeps_the_names_of_weights() -> None:
    plain, compiled = (
        VQATask({"dim": 8, "num_heads": 2}, preset="modular", **DIMS, compile=flag) for flag in (False, True)
    )
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_bfloat16_trains_float32_weights(tiny_data: Path, tmp_path: Path) -> None:
    task, data = task_and_data(tiny_data)
    exact = copy.deepcopy(task)
    for which, precision in ((task, "bf16-mixed"), (exact, "32-true")):
        trainer(tmp_path, max_epochs=1, precision=precision).fit(which, data)
    for mine, theirs in zip(task.parameters(), exact.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05)
        assert mine.numel() == 1 or not torch.equal(mine, theirs), "nothing ran in bfloat16"


@pytest.mark.parametrize(
    ("preset", "sizes", "message"),
    [
        ("modulr", {}, "no preset 'modulr'; did you mean 'modular'?"),
        ("modular", {"num_head": 2}, "no argument 'num_head'; did you mean 'num_heads'?"),
        ("modular", {"region_dim": 2}, "follows from the data"),
        ("modular", {"dim": 10, "num_heads": 4}, "10"),
        ("modular", {"dim": "wide"}, "cannot be built with"),
    ],
)
def test_build_model_refuses(preset: str, sizes: dict, message: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + message.replace("?", r"\?")):
        build_model(preset, sizes, **DIMS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_built_by_name(preset: str) -> None:
    sizes = {"layers": ["parallel", "dense"]} if preset == "stack" else {}
    assert isinstance(build_model(preset, sizes | small_sizes(preset), **DIMS), VQAModel)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"schedule": "step"}, "the schedule 'step' needs model.schedule.decay_epochs"),
        ({"schedule": "exponential"}, "the schedule 'exponential' needs model.schedule.decay_steps"),
        ({"reduction": "average"}, "model.loss.reduction must be one of mean, sum, got 'average'"),
        ({"schedule": "linear"}, "model.schedule.name must be one of constant, step, exponential, cosine, one_cycle"),
        ({"warmup": "steep"}, "model.schedule.warmup must be one of linear, stairs, got 'steep'"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(recipe: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VQATask({"dim": 8, "num_heads": 2}, preset="modular", **DIMS, **recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"decay_epochs": [3]}, r"model.schedule.decay_epochs \[3\] has no effect with the schedule 'cosine'"),
        ({"decay_rate": 0.5}, "model.schedule.decay_rate 0.5 has no effect with the schedule 'cosine'"),
        ({"decay_steps": 9}, "model.schedule.decay_steps 9 has no effect with the schedule 'cosine'"),
        ({"warmup": "stairs"}, "model.schedule.warmup stairs has no effect without warmup_epochs"),
        ({"warmup": "stairs", "schedule": "one_cycle"}, "no effect with the schedule 'one_cycle'"),
        ({"betas": (0.9, 0.99), "optimizer": "rmsprop"}, "no effect with the optimizer 'rmsprop'"),
    ],
)
def test_a_setting_without_effect_is_named(recipe: dict, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        VQATask({"dim": 8, "num_heads": 2}, preset="modular", **DIMS, **recipe)


def test_bounds_after_the_end_of_training_are_named(
    tiny_data: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    task, data = task_and_data(tiny_data, schedule="step", decay_epochs=[1, 4], warmup_epochs=2.5)
    trainer(tmp_path, max_epochs=2).fit(task, data)
    messages = [str(warning.message) for warning in recwarn]
    assert "training ends at epoch 2, before model.schedule.decay_epochs [4]" in messages
    assert "training ends at epoch 2, before model.schedule.warmup_epochs [2.5]" in messages


def test_a_preset_beside_a_model_is_named() -> None:
    model = build_model("parallel", {"dim": 8, "num_heads": 2}, **DIMS)
    with pytest.warns(UserWarning, match="preset and sizes have no effect on a model"):
        VQATask(model, preset="modular")


def test_published_recipes_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    recipe = {"schedule": "step", "decay_epochs": [10, 12], "decay_rate": 0.25, "warmup_epochs": 3, "warmup": "stairs"}
    VQATask({"dim": 8, "num_heads": 2}, preset="modular", **DIMS, **recipe, betas=(0.9, 0.99))
    assert not [warning for warning in recwarn if "has no effect" in str(warning.message)]


def test_task_refuses() -> None:
    with pytest.raises(ValueError, match="give a model, or preset"):
        VQATask({"dim": 8})
    with pytest.raises(
        ValueError, match=r"model.optimizer.name must be one of adam, adamw, adamax, rmsprop, got 'sgd'"
    ):
        VQATask({}, preset="modular", **DIMS, optimizer="sgd")  # type: ignore[arg-type]
