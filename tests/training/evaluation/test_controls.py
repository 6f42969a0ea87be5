from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import settings

from coattn.cli import main
from coattn.explain.abstain import Safeguards
from coattn.metrics.certificate import Certificate
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.controls import BLANK, SHUFFLED, blanked, shuffled


def test_shuffled_and_blank_batches(tiny_data: Path, tmp_path: Path) -> None:
    data = VQADataModule(**settings(tiny_data, tmp_path)["data"])
    batch = next(iter(data.evaluation_loader("val", whole=True)))
    other = shuffled(batch)
    assert torch.equal(other.question, batch.question)
    assert torch.equal(other.images.sort().values, batch.images.sort().values)
    for images in (batch.images, torch.tensor([2, 1, 1, 2, 2, 1, 0, 2] * 2)):  # half of these are about one image
        chosen = batch._replace(
            images=images, **dict.fromkeys(("regions", "region_mask", "boxes", "image_sizes"), images)
        )
        other = shuffled(chosen)
        assert (other.images != images).all()
        assert torch.equal(other.regions, other.images)
    feature = torch.arange(batch.regions.shape[2], dtype=torch.float32)
    blank = blanked(batch, feature)
    assert torch.equal(blank.regions[batch.region_mask].float(), feature.expand(int(batch.region_mask.sum()), -1))
    assert not blank.regions[~batch.region_mask].any()


def test_test_prints_controls_and_predict_withholds_answers(
    config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    capsys.readouterr()
    assert main(["test", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "The same model with other images, in percent:" in printed
    assert SHUFFLED in printed
    assert BLANK in printed

    # Answers without a wish are doubted; with one some are withheld, but kept to be scored.
    asked = json.loads((tiny_data / "test_questions.json").read_text())
    asked["questions"][0]["question"] += " hexagon"
    questions = tmp_path / "strange_questions.json"
    questions.write_text(json.dumps(asked))
    out, model = tmp_path / "answers.json", tmp_path / "run" / "model"
    sure = [Certificate(0.05, 0.0, 1.0, 0.0, 13, 9), Certificate(0.01, 1.0, 0.0, 0.0, 13, 9)]
    replace(Safeguards.load(model), certificates=tuple(sure)).save()
    command = ["predict", "--config", str(config), "--ckpt_path", str(model), "--output", str(out)]
    command += ["--data.files.predict_questions", str(questions)]
    unknown = "The model does not know the word “hexagon”."
    entries = {}
    for name, options in (("plain", []), ("kept", ["--max-risk", "0.01", "--answer-anyway"]), ("0.01", [])):
        assert main([*command, *options, *(["--max-risk", name] if name == "0.01" else [])]) == 0
        entries[name] = json.loads(out.read_text())
        assert f"to 11 questions; {sum(bool(entry['reasons']) for entry in entries[name])} are doubted" in (
            capsys.readouterr().out
        )
        first = entries[name][0]
        assert (first["unknown_words"], unknown in first["reasons"]) == (["hexagon"], True)
    answered = [{name: entry[name] for name in ("answer", "confidence")} for entry in entries["plain"]]
    for kept in (entries["kept"], entries["0.01"]):
        assert [{name: entry[name] for name in ("answer", "confidence")} for entry in kept] == answered
        assert all(any("below the 100 %" in reason for reason in entry["reasons"]) for entry in kept)
    withheld = {name: {entry["withheld"] for entry in each} for name, each in entries.items()}
    assert withheld == {"plain": {False}, "kept": {False}, "0.01": {True}}

    files = [f"--{kind}={tiny_data}/test_{kind}.json" for kind in ("questions", "annotations")]
    assert main(["score", str(out), *files, "--samples", "0"]) == 0
    assert "answered or withheld questions accuracy withheld 11 " in " ".join(capsys.readouterr().out.split())
    for options, message in (
        (["--max-risk", "1.5"], "(--max-risk) is a share between 0 and 1, for example 0.05, not 1.5"),
        (["--answer-anyway"], "(--max-risk) withholds: give both"),
        (["--max-risk", "0.05", "--format", "gqa"], "--format gqa has no place for withheld answers"),
        (["--max-risk", "0.05", "--ckpt_path", "best"], f"give --ckpt_path {model}"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_report_names_twin_prior_and_what_training_has_seen(
    config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    command = ["test", "--config", str(config)]
    capsys.readouterr()
    assert main([*command, "--by", "colour"]) == 2  # before the questions are answered
    assert (
        "no question has a column 'colour'; known are answer_type, question_type, split, image_id"
        in capsys.readouterr().err
    )
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
    assert "+0.0 (-54.7 to +54.7), p = 1" in printed  # on 9 images
    assert "Questions with words that the model does not know: 1 of 11." in printed
    assert "image in training questions accuracy 95 % interval unseen 11 " in printed
    assert "question in training questions accuracy 95 % interval seen 10 " in printed
    assert "closed or open questions accuracy 95 % interval open 6 " in printed
    assert "image_id questions accuracy" in printed
    assert "split questions accuracy 95 % interval test 11 " in printed
    assert "points above a random order" in printed

    written = run / "predictions" / "test.report.json"
    assert f"{written}: the report as JSON" in printed
    report = json.loads(written.read_text())
    assert (report["questions_with_unknown_words"], report["prior"], report["twin"]) == (1, "no", str(twin))
    assert report["comparison"]["differences"]["all questions"]["question only"]["value"] == 0
    assert set(report["other_images"]) == {SHUFFLED, BLANK}
    assert {"closed or open", "image in training", "image_id", "split"} <= set(report["scores"]["numbers"])
    assert report["scores"]["numbers"]["all questions"]["exact_match"]["interval"]
    assert set(report["explanations"]["methods"]) >= {"dependence", "attention"}


def test_explanations_that_cannot_be_measured_are_a_note(
    config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    files = []
    for kind in ("questions", "annotations"):
        content = json.loads((tiny_data / f"test_{kind}.json").read_text())
        content[kind] = content[kind][:1]
        (tmp_path / f"{kind}.json").write_text(json.dumps(content))
        files += [f"--data.files.test_{kind}", str(tmp_path / f"{kind}.json")]
    assert main(["test", "--config", str(config), *files, "--explain"]) == 0
    assert "note: explanations were not measured: the test questions have no two images" in capsys.readouterr().out
    report = json.loads((tmp_path / "run/predictions/test.report.json").read_text())
    assert report["unexplained"].startswith("the test questions have no two images")
