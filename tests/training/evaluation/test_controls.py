from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import settings

from coattn.cli import main
from coattn.training.data import VQADataModule
from coattn.training.evaluation.controls import BLANK, SHUFFLED, blanked, shuffled


def test_shuffled_and_blank_batches(tiny_data: Path, tmp_path: Path) -> None:
    data = VQADataModule(**settings(tiny_data, tmp_path)["data"])
    batch = next(iter(data.evaluation_loader("val", whole=True)))
    other = shuffled(batch)
    half = len(batch.positions) // 2
    assert torch.equal(other.question, batch.question)
    assert torch.equal(other.regions[half], batch.regions[0])
    assert torch.equal(other.region_mask[half], batch.region_mask[0])
    feature = torch.arange(batch.regions.shape[2], dtype=torch.float32)
    blank = blanked(batch, feature)
    assert torch.equal(blank.regions[batch.region_mask].float(), feature.expand(int(batch.region_mask.sum()), -1))
    assert not blank.regions[~batch.region_mask].any()


def test_test_prints_controls_and_predict_writes_doubts(
    config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    capsys.readouterr()
    assert main(["test", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "The same model with other images, in percent:" in printed
    assert SHUFFLED in printed
    assert BLANK in printed
    asked = json.loads((tiny_data / "test_questions.json").read_text())
    asked["questions"][0]["question"] += " hexagon"
    questions = tmp_path / "strange_questions.json"
    questions.write_text(json.dumps(asked))
    out = tmp_path / "answers.json"
    model = str(tmp_path / "run" / "model")
    command = ["predict", "--config", str(config), "--ckpt_path", model, "--output", str(out)]
    assert main([*command, "--data.files.predict_questions", str(questions)]) == 0
    doubts = json.loads((tmp_path / "answers.doubts.json").read_text())
    reasons = doubts[str(asked["questions"][0]["question_id"])]
    assert "The model does not know the word “hexagon”." in reasons
    assert f"reasons to doubt {len(doubts)} of the answers" in capsys.readouterr().out


def test_report_names_twin_prior_and_what_training_has_seen(
    config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    command = ["test", "--config", str(config)]
    capsys.readouterr()
    assert main([*command, "--by", "colour"]) == 2  # before the questions are answered
    assert "no question has a column 'colour'" in capsys.readouterr().err
    assert main([*command, "--ckpt_path", str(tmp_path / "none.ckpt"), "--explain"]) == 2
    capsys.readouterr()

    # A twin that gives the answers of the model itself differs from it by nothing.
    assert main(command) == 0
    run = tmp_path / "run"
    twin = run / "question_only" / "predictions" / "test.json"
    twin.parent.mkdir(parents=True)
    shutil.copy(run / "predictions" / "test.json", twin)
    asked = json.loads((tiny_data / "test_questions.json").read_text())
    asked["questions"][0]["question"] += " hexagon"
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps(asked))
    changed = ["--data.files.test_questions", str(questions)]
    capsys.readouterr()
    assert main([*command, *changed, "--by", "image_id", "--by", "split", "--explain"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"The question-only twin is from {twin}." in printed
    assert "The prior always answers 'no'." in printed
    assert "model - question only" in printed
    assert "+0.0 (+0.0 to +0.0), p = 1" in printed
    assert "Questions with words that the model does not know: 1 of 11." in printed
    assert "image in training questions accuracy 95 % interval unseen 11 " in printed
    assert "question in training questions accuracy 95 % interval seen 10 " in printed
    assert "closed or open questions accuracy 95 % interval open 6 " in printed
    assert "image_id questions accuracy" in printed
    assert "split questions accuracy 95 % interval test 11 " in printed
    assert "points above a random order" in printed
