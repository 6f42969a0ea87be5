"""Learning rates of parts, and word vectors in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import change, settings

from coattn.cli import main
from coattn.serialization.directory import load_directory
from coattn.training.checkpoints import read_checkpoint
from coattn.training.optim import parameter_groups
from coattn.training.task import VQATask

DIMS = {"num_words": 8, "question_dim": None, "region_dim": 8, "num_answers": 5}
SIZES = {"dim": 16, "num_heads": 2, "embedding_dim": 8}
EMBEDDING = "question_encoder.embedding"


def task(**options: object) -> VQATask:
    return VQATask(SIZES, preset="modular", **DIMS, **options)


def test_parts_get_their_learning_rates() -> None:
    scales = {"question_encoder": 0.1, EMBEDDING: 0.5, "head.classify.bias": 0}
    model = task(lr_scale=scales).model
    groups = parameter_groups(model, 2.0, scales)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if name == "head.classify.bias":
            assert not parameter.requires_grad
            assert id(parameter) not in rates
        else:
            expected = 1.0 if EMBEDDING in name else 0.2 if name.startswith("question_encoder.") else 2.0
            assert rates[id(parameter)] == pytest.approx(expected), name
    assert groups[0]["lr"] == 2.0
    assert len(parameter_groups(model, 2.0, {})) == 1


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"question_encoder.embeding": 0}, "no part 'question_encoder.embeding'; did you mean"),
        ({"": 1}, "no part ''; known are question_encoder, "),
        ({"head": -1}, "the factor of 'head' must be 0 or more, got -1"),
        ({"head": float("inf")}, "must be 0 or more, got inf"),
    ],
)
def test_wrong_parts_are_refused(scales: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(lr_scale=scales)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Vectors for some of the words of the tiny questions."""
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps({word: [float(place)] * 8 for place, word in enumerate(["what", "is", "red", "tree"])}))
    return path


def embedding(root: Path, name: str) -> torch.Tensor:
    return read_checkpoint(root / "checkpoints" / name)["state_dict"][f"model.{EMBEDDING}.embed.weight"]


def fit(config: Path, *arguments: object) -> int:
    return main(["fit", "--config", str(config), *map(str, arguments)])


def test_frozen_word_vectors_stay_and_others_move(config: Path, vectors: Path, tmp_path: Path) -> None:
    sections = {"data": {"word_vectors": str(vectors)}, "trainer": {"max_epochs": 1}}
    config = change(config, tmp_path / "vectors.yaml", sections | {"model": {"lr_scale": {EMBEDDING: 0}}})
    assert fit(config) == 0
    directory = load_directory(tmp_path / "run" / "model")
    frozen = directory.model.question_encoder.embedding.embed.weight
    row = 2 + directory.question_vocabulary.words.index("red")
    assert frozen[row].tolist() == [2.0] * 8
    assert frozen[0].tolist() == [0.0] * 8
    known = directory.extra["word_vectors"]
    assert (known["file"], known["words"], known["words_found"]) == ("vectors.json", 6, 3)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "vectors.json: 3 of 6 words" in card
    assert f"'{EMBEDDING}': 0" in card
    config = change(config, tmp_path / "free.yaml", {"model": {"lr_scale": None}})
    assert fit(config, "--trainer.default_root_dir", tmp_path / "free") == 0
    free = embedding(tmp_path / "free", "last.ckpt")
    assert free[0].tolist() == [0.0] * 8
    assert 0 < (free[row] - 2).abs().max() < 0.5
    torch.testing.assert_close(frozen[0], free[0])


def test_going_on_keeps_what_was_learnt_and_needs_no_file(config: Path, vectors: Path, tmp_path: Path) -> None:
    data = {"word_vectors": str(vectors)}
    config = change(config, tmp_path / "vectors.yaml", {"data": data, "model": {"schedule": "constant"}})
    assert fit(config, "--trainer.default_root_dir", tmp_path / "whole") == 0
    assert fit(config, "--trainer.max_epochs", 1) == 0
    vectors.unlink()
    assert fit(config, "--resume") == 0
    assert torch.equal(embedding(tmp_path / "run", "last.ckpt"), embedding(tmp_path / "whole", "last.ckpt"))
    assert load_directory(tmp_path / "run" / "model").extra["word_vectors"]["file"] == "vectors.json"
    assert main(["test", "--config", str(config)]) == 0


def test_other_word_vectors_are_no_way_to_go_on(
    config: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(config, "--trainer.max_epochs", 1) == 0
    assert fit(config, "--resume", "--data.text.word_vectors", vectors) == 2
    assert "word_vectors was None, is vectors.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"embedding_dim": 12}, "vectors of 8 numbers, but question_encoder.embedding of the model is 12 wide"),
        ({"question_encoder": "none"}, "question_encoder.embedding of the model is 16 wide"),
    ],
)
def test_vectors_of_another_width(
    sizes: dict, message: str, config: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(config, "--trainer.max_epochs", 1) == 0
    options = {"data": {"word_vectors": str(vectors)}, "model": {"sizes": sizes}}
    assert fit(change(config, tmp_path / "wrong.yaml", options), "--overwrite") == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "run" / "model" / "config.json").exists(), "a mistake must not cost the old run"


def test_vectors_suit_an_encoder_without_recurrence(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_text("".join(f"{word} {' '.join(['0.5'] * 16)}\n" for word in ("what", "is")))
    options = settings(tmp_path, tmp_path)["model"]["sizes"] | {"question_encoder": "none"}
    sections = {"data": {"word_vectors": str(path)}, "model": {"sizes": options, "lr_scale": {EMBEDDING: 0}}}
    assert fit(change(config, tmp_path / "plain.yaml", sections), "--trainer.max_epochs", 1) == 0
    assert (embedding(tmp_path / "run", "last.ckpt") == 0.5).all(dim=1).sum() == 7  # std 0: all but padding
