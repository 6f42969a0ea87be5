"""Text encoders trained together with the model, from a YAML file to answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import change, plain_descent

from coattn._internal.files import read_json
from coattn.cli import main
from coattn.models import GENERATORS, PRESETS
from coattn.predictor import Predictor
from coattn.serialization.directory import load_directory
from coattn.serialization.registry import build, describe
from coattn.text.encoders import FinetunedQuestionEncoder
from coattn.training.checkpoints import read_checkpoint
from coattn.training.optim import OPTIMIZERS
from coattn.training.task import VQATask

pytest.importorskip("transformers", reason="transformers is not installed")

TRANSFORMER = "question_encoder.transformer"


@pytest.fixture
def encoder(make_text_encoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_text_encoder(tmp_path / "tiny bert")


@pytest.fixture
def finetuned(config: Path, encoder: Path, tmp_path: Path) -> Path:
    """A configuration that trains a text encoder, with a recurrence behind it."""
    model = {"lr_scale": {TRANSFORMER: 0.02}, "schedule": "constant"}
    return change(config, tmp_path / "finetuned.yaml", {"data": {"text_encoder": str(encoder)}, "model": model})


def run(command: str, config: Path, *arguments: object) -> int:
    return main([command, "--config", str(config), *map(str, arguments)])


def weights(root: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return read_checkpoint(root / "checkpoints" / name)["state_dict"]


def test_a_trained_model_needs_nothing_else(
    finetuned: Path, encoder: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (
        run(
            "fit",
            finetuned,
            "--trainer.max_epochs",
            1,
            "--model.text_encoder.frozen_layers",
            1,
            "--data.memory.num_workers",
            1,
        )
        == 0
    )
    root, model = tmp_path / "run", tmp_path / "run" / "model"
    start = VQATask.load_from_checkpoint(root / "checkpoints" / "last.ckpt", weights_only=True)
    start.model.question_encoder.load_weights(encoder)
    before, after = start.state_dict(), weights(root)
    moved = {name for name in before if TRANSFORMER in name and not torch.equal(before[name], after[name])}
    assert moved
    assert all("layer.1." in name for name in moved)
    assert max((before[name] - after[name]).abs().max() for name in moved) < 20 * 5e-3 * 0.02
    shutil.rmtree(encoder)
    assert sorted(path.name for path in model.iterdir()) == [
        "README.md",
        "answers.json",
        "certificate.json",
        "config.json",
        "index.safetensors",
        "model.safetensors",
        "text_encoder",
    ]
    assert load_directory(model).text_encoder["name"] == "transformers bert"
    assert "`tiny bert` (transformers bert)" in (model / "README.md").read_text()
    predicted = {}
    for name, which in {"model": model, "checkpoint": "last"}.items():
        assert run("predict", finetuned, "--ckpt_path", which, "--output", tmp_path / name) == 0
        predicted[name] = {entry["question_id"]: entry["answer"] for entry in read_json(tmp_path / name)}
    assert predicted["model"] == predicted["checkpoint"]
    predictor = Predictor.load(model, features=tiny_data / "features.h5")
    explanation = predictor.maps("test/0", "please what colour?")
    assert explanation.tokens == ("[CLS]", "please", "what", "colour", "?", "[SEP]")
    assert explanation.maps["pooling.question"].shape[-1] == 6
    question = next(r for r in read_json(tiny_data / "test_questions.json")["questions"] if r["image_id"] == "test/0")
    assert predictor.ask("test/0", question["question"])[0].text == predicted["model"][question["question_id"]]


def test_going_on_gives_the_same_weights_without_the_encoder(finetuned: Path, encoder: Path, tmp_path: Path) -> None:
    assert run("fit", finetuned, "--trainer.default_root_dir", tmp_path / "whole") == 0
    assert run("fit", finetuned, "--trainer.max_epochs", 1) == 0
    shutil.rmtree(encoder)
    assert run("fit", finetuned, "--resume") == 0
    resumed, whole = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    origins = [load_directory(tmp_path / name / "model").text_encoder for name in ("run", "whole")]
    assert origins[0] == origins[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.text.encoder", "nobody/nothing"], "on this machine; give its folder, or set data.text.allow_"),
        (["--data.text.embeddings", "words.h5"], "set either data.text.encoder"),
        (["--data.text.max_tokens", "2"], "max_tokens is 2, must be from 3 to 32"),
        (["--data.text.word_vectors", "glove.txt"], "data.text.word_vectors needs words"),
        (["--model.text_encoder.frozen_layers", "3"], "cannot freeze 3 layers of a text encoder with 2 layers"),
        (
            [
                "--data.text.encoder",
                "null",
                "--model.optimizer.lr_scale",
                "null",
                "--model.text_encoder.frozen_layers",
                "1",
            ],
            "set data.text.enc",
        ),
        (["--model.text_config", "{}"], "model.text_config follows from the data; remove it"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    message: str,
    finetuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("fit", finetuned, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert not (tmp_path / "run").exists()


def test_another_kind_of_questions_is_refused(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", finetuned, "--trainer.max_epochs", 1) == 0
    assert run("test", finetuned, "--data.text.encoder", "null") == 2
    assert "this model reads what data.text.encoder provides, but data.text.encoder is None" in capsys.readouterr().err
    assert run("test", finetuned, "--ckpt_path", tmp_path / "run/model", "--data.text.max_tokens", 5) == 2
    assert "trained with data.text.max_tokens 32, not 5" in capsys.readouterr().err


@pytest.mark.parametrize("preset", [*PRESETS, *GENERATORS])
def test_every_preset_takes_a_text_encoder_or_word_vectors(preset: str) -> None:
    sizes = {"layers": ["parallel"]} if preset == "stack" else {}
    kind = {"num_answer_words": 9, "loss": "cross_entropy"} if preset in GENERATORS else {"num_answers": 3}
    common = {"preset": preset, "sizes": sizes, "region_dim": 8, **kind}
    config = {"model_type": "bert", "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 8}
    with torch.device("meta"):
        finetuned = VQATask(**common, question_dim=8, text_config=json.dumps(config)).model
        words = VQATask(**common, num_words=6)
    with torch.device("meta"):
        again = build(describe(finetuned))
    assert describe(again) == describe(finetuned)
    assert isinstance(finetuned.question_encoder, FinetunedQuestionEncoder)
    assert list(words._word_embeddings()) == ["question_encoder.embedding"]


def test_large_steps_are_warned_of(finetuned: Path) -> None:
    with pytest.warns(UserWarning, match=r"learning rate 0.005, .*lr_scale \{question_encoder.transformer: 0.004\}"):
        assert run("fit", finetuned, "--model.optimizer.lr_scale", "null", "--trainer.max_steps", 1) == 0


def test_bfloat16(finetuned: Path, tmp_path: Path) -> None:
    assert run("fit", finetuned, "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", 1) == 0
    trained = weights(tmp_path / "run")
    assert all(value.dtype == torch.float32 for value in trained.values() if value.is_floating_point())
    assert all(value.isfinite().all() for value in trained.values())


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny import plain_descent
from coattn.cli import main
from coattn.training.optim import OPTIMIZERS
OPTIMIZERS["adam"] = plain_descent
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_devices_train_as_one(finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"sizes": {"dropout": 0.0}, "optimizer": "adam", "lr": 0.1, "text_dropout": 0.0, "frozen_layers": 1}
    config = change(finetuned, tmp_path / "plain.yaml", {"model": plain, "trainer": {"max_epochs": 1}})
    script = tmp_path / "run_coattn.py"
    script.write_text(SCRIPT)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path / 'two'}"]
    done = subprocess.run(
        [sys.executable, script, "fit", "--config", config, *two],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setitem(OPTIMIZERS, "adam", plain_descent)
    assert run("fit", config) == 0
    one, both = weights(tmp_path / "run"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(both[name], one[name], rtol=1e-5, atol=1e-6, msg=name)
