"""Every YAML in configs/ is parsed and trains for a step, on generated data in the place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny import settings, write_data, write_store

from coattn.cli import main
from coattn.datasets.vqa_json import read_vqa

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("**/*.yaml"))


def test_there_are_configs() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_trains_for_a_step(path: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path, flips=True)
    there = settings(data, tmp_path)["data"] | {"features": str(data / "features.h5")}
    given = yaml.safe_load(path.read_text())["data"]
    if "question_embeddings" in given:
        texts = {
            record.question
            for split in ("train", "val", "test")
            for record in read_vqa(data / f"{split}_questions.json", None).records
        }
        there["question_embeddings"] = str(write_store(tmp_path / "embeddings.h5", sorted(texts)))
    replaced = [
        f"--data.{name}={there[name]}" for name in given if name in there and name not in ("batch_size", "pool")
    ]
    root = f"--trainer.default_root_dir={tmp_path / 'run'}"
    assert main(["fit", "--config", str(path), *replaced, root, "--trainer.max_steps=1", "--trainer.max_epochs=1"]) == 0
    assert main(["test", "--config", str(path), *replaced, root]) == 0
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_says_command_data_time_and_score(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    for words in ("coattn fit --config", "Time:", "Test accuracy:"):
        assert words in header
