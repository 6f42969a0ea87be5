"""Settings in groups, and the names that they had before."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from tiny import change, settings

from coattn.cli import main
from coattn.nn import VQAModel, attention
from coattn.nn.coattention import modular
from coattn.training.checkpoints import read_checkpoint
from coattn.training.cli import options
from coattn.training.data.module import VQADataModule
from coattn.training.model import build_model
from coattn.training.optim import parameter_groups
from coattn.training.settings import MOVED, OptimizerSettings, read_groups, regroup
from coattn.training.task import VQATask

GOLDEN = Path(__file__).parents[1] / "golden"
DIMS = {"num_words": 8, "question_dim": None, "region_dim": 8, "num_answers": 5}


def test_every_earlier_name_leads_to_a_setting() -> None:
    defaults = {"data": VQADataModule(features="x").hparams, "model": VQATask({}, preset="modular", **DIMS).hparams}
    for new in MOVED.values():
        section, group, name = new.split(".")
        assert name in defaults[section][group], new


def test_settings_move_into_their_groups() -> None:
    flat = {"features": "f", "answers": "words", "text": {"max_tokens": 3}, "tokenizer": "plain", "batch_size": 8}
    grouped, moved = regroup("data", flat)
    expected = {"features": "f", "answers": {"kind": "words"}, "text": {"max_tokens": 3, "tokenizer": "plain"}}
    assert grouped == expected | {"batches": {"size": 8}}
    assert moved["data.batch_size"] == "data.batches.size"
    assert regroup("data", grouped) == (grouped, {})
    with pytest.raises(ValueError, match=r"model\.lr is now model\.optimizer\.lr, and both are set"):
        regroup("model", {"lr": 1.0, "optimizer": {"lr": 2.0}})


def test_python_takes_groups_mappings_and_earlier_names() -> None:
    kinds = {"optimizer": OptimizerSettings}
    for value in (OptimizerSettings("adam", lr=0.1), {"name": "adam", "lr": 0.1}):
        assert read_groups("model", kinds, {"optimizer": value}, {})["optimizer"].lr == 0.1
    assert read_groups("model", kinds, {"optimizer": "adam"}, {"lr": 0.1})["optimizer"] == OptimizerSettings(
        "adam", 0.1
    )
    with pytest.raises(TypeError, match=r"no setting model\.optimzer; did you mean 'optimizer'\?"):
        read_groups("model", kinds, {"optimizer": None}, {"optimzer": 1})
    with pytest.raises(ValueError, match=r"no setting model\.optimizer\.beta; did you mean 'betas'\?"):
        read_groups("model", kinds, {"optimizer": {"beta": 1}}, {})


def test_a_folder_stands_for_its_files(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    folder = tmp_path / "data"
    (folder / "test_questions.json").unlink()
    files = VQADataModule(folder=str(folder), files={"val_questions": []}).settings.files
    assert files.train_annotations == str(folder / "train_annotations.json")
    assert files.test_questions is None
    data = VQADataModule(folder=str(folder), files={"val_questions": []})
    assert data.settings.features == str(folder / "features")
    assert not data.has_validation
    with pytest.raises(ValueError, match=r"data has no test_questions\.json: .*set data\.files\.test_questions"):
        data.split("test")
    with pytest.raises(ValueError, match=r"set data\.folder, or data\.features and data\.files"):
        VQADataModule()


def test_sizes_take_the_earlier_name_of_an_argument() -> None:
    earlier = {"dim": 8, "standardised": True}
    task = VQATask(preset="modular", sizes=earlier, num_words=5, region_dim=3, num_answers=2)
    assert task.hparams["sizes"] == {"dim": 8, "standardized": True} == regroup("model", {"sizes": earlier})[0]["sizes"]
    with pytest.raises(ValueError, match="standardised is the earlier name of standardized, and both are given"):
        regroup("model", {"sizes": earlier | {"standardized": False}})


def test_a_file_and_a_command_line_of_earlier_names_train(
    tiny_data: Path, tmp_path: Path, lightning_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "_noted", set())  # names that an earlier test was told of
    given = settings(tiny_data, tmp_path / "run")
    data, model = given["data"], given["model"]
    given["data"] = {"features": data["features"], **data["files"], "batch_size": 8, "pool": 2}
    given["model"] = {name: model[name] for name in ("preset", "sizes")} | {"schedule": "constant", "optimizer": "adam"}
    path = tmp_path / "flat.yaml"
    path.write_text(yaml.safe_dump(given))
    assert main(["fit", "--config", str(path), "--model.lr=0.25", "--trainer.max_steps", "1"]) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["model"]["optimizer"]["lr"] == 0.25
    assert saved["model"]["optimizer"]["name"] == "adam"
    assert saved["data"]["batches"]["size"] == 8
    assert "model.lr is now model.optimizer.lr" in lightning_log.text


def test_a_checkpoint_of_earlier_names_goes_on(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Dropout of packed rows, and of attention by columns, draws other values than it did then.
    monkeypatch.setattr(modular, "pack", lambda x, mask: x)
    monkeypatch.setattr(attention, "SHORT_ROW", 0)
    sizes = {"num_layers": 1, "dim": 8, "num_heads": 2, "ffn_dim": 8, "embedding_dim": 4, "dropout": 0.2}
    constant = {"sizes": sizes, "schedule": {"name": "constant", "warmup_epochs": 0.0}}
    config = change(config, tmp_path / "changed.yaml", {"model": constant, "trainer": {"max_steps": 14}})
    weights = []
    for name, start in (("new", []), ("old", ["--ckpt_path", str(GOLDEN / "checkpoint_flat_settings.ckpt")])):
        assert main(["fit", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / name), *start]) == 0
        weights.append(read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"])
    for name, value in weights[0].items():
        # These add the same to all scores of a softmax: their gradients are nothing but rounding.
        if name.endswith(("k_proj.bias", "score.output.bias")):
            continue
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_norms_and_biases_can_be_exempt_from_weight_decay() -> None:
    model = build_model("modular", {"dim": 8, "num_heads": 2, "num_layers": 1, "embedding_dim": 4}, **DIMS)
    assert isinstance(model, VQAModel)
    everything = parameter_groups(model, 0.1, {})
    assert [set(group) for group in everything] == [{"params", "lr"}]
    decayed, exempt = parameter_groups(model, 0.1, {}, decay_norms_and_biases=False)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert "weight_decay" not in decayed
    assert exempt["weight_decay"] == 0
    assert all(re.search(r"bias|norm", names[parameter]) for parameter in exempt["params"])
    assert not any("bias" in names[parameter] for parameter in decayed["params"])
    assert len(decayed["params"]) + len(exempt["params"]) == len(names)


def test_a_parser_tries_whole_numbers_first() -> None:
    def limited(limit: object = None, name: str = "") -> None: ...

    limited.__annotations__.update(limit=float | int | None, name=str)
    options.try_whole_numbers_first(limited)
    assert limited.__annotations__ == {"limit": int | float | None, "name": str, "return": "None"}
    assert get_args(limited.__annotations__["limit"])[:2] == (int, float)
