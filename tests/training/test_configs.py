"""Every YAML in configs/ is parsed and trains for a step, on generated data in place of its data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import SMALL, settings, small_sizes, write_data, write_store

from coattn.cli import main
from coattn.datasets.vqa_json import read_vqa
from coattn.text.tokenizer import tokenize
from coattn.training.model import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("**/*.yaml"))
PUBLISHED = [path for path in FILES if path.parent.name == "published"]


def test_there_are_configs() -> None:
    assert FILES
    assert PUBLISHED


def questions_of(data: Path) -> list[str]:
    splits = ("train", "val", "test")
    return [record.question for split in splits for record in read_vqa(data / f"{split}_questions.json", None).records]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_trains_for_a_step(path: Path, tmp_path: Path, make_text_encoder: Callable[..., Path]) -> None:
    data = write_data(tmp_path, flips=True)
    config = yaml.safe_load(path.read_text())
    given = config["data"]
    text = given.get("text", {})
    files = settings(data, tmp_path)["data"]["files"]
    there: dict[str, Any] = {
        f"files.{name}": file for name, file in files.items() if "folder" in given or name in given["files"]
    }
    there["features"] = data / "features.h5"
    if "embeddings" in text:
        there["text.embeddings"] = write_store(tmp_path / "embeddings.h5", sorted(set(questions_of(data))))
    if "word_vectors" in text:
        words = {word for question in questions_of(data) for word in tokenize(question)}
        there["text.word_vectors"] = tmp_path / "vectors.json"
        there["text.word_vectors"].write_text(json.dumps({word: [0.1] * SMALL["embedding_dim"] for word in words}))
    if "encoder" in text:
        there["text.encoder"] = make_text_encoder(tmp_path / "encoder", num_hidden_layers=4)
    replaced = [f"--data.{name}={value}" for name, value in there.items()]
    if path in PUBLISHED:
        # They are too large for a test. The sizes are changed, and nothing else that the YAML says.
        sizes = config["model"].get("sizes", {}) | small_sizes(config["model"]["preset"])
        replaced.append(f"--model.sizes={json.dumps(sizes)}")
    if "curriculum" in given.get("batches", {}):
        replaced.append('--data.batches.curriculum.question_types=["yes/no"]')
    root = f"--trainer.default_root_dir={tmp_path / 'run'}"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*has no effect")
        steps = ("--trainer.max_steps=1", "--trainer.max_epochs=1")
        assert main(["fit", "--config", str(path), *replaced, root, *steps]) == 0
    scored = "test" if "files.test_annotations" in there else "validate"
    assert main([scored, "--config", str(path), *replaced, root]) == 0
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_models_are_built_at_their_full_size(path: Path) -> None:
    model = yaml.safe_load(path.read_text())["model"]
    dims = {"num_words": 20_000, "question_dim": None, "region_dim": 2048, "num_answers": 3129}
    with torch.device("meta"):
        built = build_model(model["preset"], model.get("sizes", {}), **dims)
    assert sum(parameter.numel() for parameter in built.parameters()) > 5e6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_says_command_data_time_and_score(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    measured = () if path in PUBLISHED else ("Time:", "Test accuracy:")  # recipes are not measured: their README.md
    for words in ("coattn fit --config", *measured):
        assert words in header
    if path in PUBLISHED:
        assert f"coattn fit --config {path.relative_to(CONFIGS.parent)}" in header
        assert "# Data:" in header
        assert "# Published" in header
