"""Models that write their answers: targets, loss, validation, and a whole run from the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from tiny import change, records, settings, write_data

from coattn.cli import main
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa, write_vqa
from coattn.metrics.score import score
from coattn.nn import VQAGenerator
from coattn.nn.decoder import BOS, EOS
from coattn.serialization.directory import load_directory
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary
from coattn.training.data.module import VQADataModule
from coattn.training.data.split import Questions, encode_answers
from coattn.training.evaluation.answers import CollectAnswers, results_by_question
from coattn.training.model import build_model
from coattn.training.objectives import make_objective
from coattn.training.task import VQATask

SIZES = {"dim": 16, "num_heads": 2, "embedding_dim": 8, "dropout": 0.0, "max_length": 4, "num_beams": 2}
WRITER = {
    "model": {"preset": "generator", "sizes": SIZES, "loss": "cross_entropy", "lr": 1e-2},
    "data": {"answers": "words"},
}


@pytest.fixture(scope="module")
def listed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set with lists for answers: the color, then what is asked ("red, `colour`"), or just yes or no."""
    folder = write_data(tmp_path_factory.mktemp("listed"))
    for split in ("train", "val", "test"):
        ids = [f"{split}/{number}" for number in range(9)]
        listed = [
            record if record.answer in ("yes", "no") else replace(record, answers=(f"{record.answer}, the colour",))
            for record in records(split, ids)
        ]
        write_vqa(folder, split, listed, info={"metric": "exact_match"})
    return folder


def task_and_data(folder: Path, **changes: object) -> tuple[VQATask, VQADataModule]:
    options = settings(folder, folder)
    data = VQADataModule(**options["data"] | {"answers": "words"})
    torch.manual_seed(0)
    sizes = SIZES | {key: changes.pop(key) for key in list(changes) if key in ("decoder", "attention", "num_beams")}
    recipe = {"loss": "cross_entropy", "lr": 1e-2, "schedule": "constant"} | changes
    task = VQATask(
        preset="generator",
        sizes=sizes,
        num_words=data.num_words,
        region_dim=data.region_dim,
        num_answer_words=data.num_answer_words,
        **recipe,
    )
    return task, data


def trainer(folder: Path, **changes: object) -> Trainer:
    return Trainer(**settings(folder, folder)["trainer"] | {"logger": False, "enable_checkpointing": False} | changes)


def test_answers_become_words_with_their_worth() -> None:
    words = AnswerWords(["chair", "table", "2"])
    given = [
        Record(1, "a", "?", ("chair, table",)),
        Record(2, "a", "?", ("two",)),
        Record(3, "a", "?", ("sofa",)),
        Record(4, "a", "?", ()),
    ]
    targets, scores = encode_answers(Questions(given, "exact_match"), words)
    assert targets.lengths.tolist() == [1, 1, 0, 0]
    assert targets.values.tolist() == [[4, 3, 5, EOS], [6, EOS, 0, 0]]
    assert scores.tolist() == [1, 1]
    several = [Record(1, "a", "?", ("chair",) * 3 + ("Table", "tables") + ("table",) * 5)]
    targets, scores = encode_answers(Questions(several, "vqa_accuracy"), words)
    choices = encode_answers(Questions(several, "vqa_accuracy"), AnswerVocabulary(["chair", "table"]))
    assert targets.values.tolist() == [[4, EOS], [5, EOS]]
    np.testing.assert_array_equal(scores, choices[1])
    assert encode_answers(Questions(given[2:], "exact_match"), words)[0].values.shape == (0, 1)


def test_the_loss_is_the_cross_entropy_of_the_words(listed_data: Path) -> None:
    task, data = task_and_data(listed_data)
    batch = next(iter(data.evaluation_loader("train")))
    losses = task.objective.losses(task.eval().model, batch)
    for place, position in enumerate(batch.positions.tolist()):
        ids = data.text.vocabularies.answers.encode(data.split("train").records[position].answer)  # type: ignore[union-attr]
        single = {
            name: getattr(batch, name)[place : place + 1]
            for name in ("question", "regions", "question_mask", "region_mask", "boxes")
        }
        log_probs = task.model(**single, answer_tokens=torch.tensor([[BOS, *ids[:-1]]]))[0].log_softmax(-1)
        torch.testing.assert_close(losses[place], -log_probs[range(len(ids)), ids].sum(), atol=1e-4, rtol=1e-4)


def test_label_smoothing_is_spread_over_what_can_be_written(listed_data: Path) -> None:
    task, data = task_and_data(listed_data)
    batch = next(iter(data.evaluation_loader("train")))
    model = task.eval().model
    logits = task(batch)
    log_probs = logits[..., EOS:].log_softmax(-1)
    real = batch.target_answers != 0
    smooth = -(log_probs.mean(-1) * real).sum(1)
    plain = task.objective.losses(model, batch)
    smoothed = make_objective(model, loss="cross_entropy", label_smoothing=0.1).losses(model, batch)
    torch.testing.assert_close(smoothed[batch.target_rows], 0.9 * plain[batch.target_rows] + 0.1 * smooth)


def test_a_question_without_a_writable_answer_has_no_loss(listed_data: Path) -> None:
    task, data = task_and_data(listed_data)
    batch = next(iter(data.evaluation_loader("train")))
    without = batch._replace(
        target_rows=batch.target_rows[1:],
        target_answers=batch.target_answers[1:],
        target_scores=batch.target_scores[1:],
    )
    losses = task.eval().objective.losses(task.model, without)
    assert losses[0] == 0
    torch.testing.assert_close(losses[1:], task.objective.losses(task.model, batch)[1:])
    nothing = batch._replace(
        **{name: getattr(batch, name)[:0] for name in ("target_rows", "target_answers", "target_scores")}
    )
    assert task.objective.losses(task.model, nothing).sum() == 0


def trained_and_judged(folder: Path, root: Path, *, max_epochs: int, **changes: object) -> tuple[dict, float, float]:
    """Answers to the validation questions, the accuracy that was logged, and the official one."""
    task, data = task_and_data(folder, **changes)
    trainer(root, max_epochs=max_epochs, limit_val_batches=0).fit(task, data)
    collect = CollectAnswers(len(data.split("val").records))
    logged = trainer(root, callbacks=[collect]).validate(task, data, verbose=False)[0]["val/accuracy"]
    results, split = results_by_question(data, "val", collect.numbers), data.split("val")
    return results, logged, score(results, split.records, split.metric).overall


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_lists_are_learnt_and_judged_as_officially(decoder: str, listed_data: Path, tmp_path: Path) -> None:
    results, logged, official = trained_and_judged(listed_data, tmp_path, max_epochs=20, decoder=decoder)
    assert logged == pytest.approx(official, abs=0.005)
    assert official > 80
    assert "red, the colour" in results.answers.values()


def test_several_people_are_judged_by_soft_scores(tmp_path: Path) -> None:
    _, logged, official = trained_and_judged(write_data(tmp_path, answers_each=10), tmp_path, max_epochs=5)
    assert logged == pytest.approx(official, abs=0.005)
    assert official > 0


def answers_of(path: Path) -> dict[int, str]:
    return {entry["question_id"]: entry["answer"] for entry in json.loads(path.read_text())}


def test_fit_test_predict_and_what_comes_of_it(listed_data: Path, config: Path, tmp_path: Path) -> None:
    files = {
        f"{split}_{kind}": str(listed_data / f"{split}_{kind}.json")
        for split in ("train", "val", "test")
        for kind in ("questions", "annotations")
    }
    config = change(config, tmp_path / "writer.yaml", WRITER)
    given = [f"--data.{name}={path}" for name, path in files.items()]
    given += [f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["fit", "--config", str(config), *given]) == 0
    model = tmp_path / "run" / "model"
    directory = load_directory(model)
    assert isinstance(directory.model, VQAGenerator)
    assert directory.activation == "sigmoid"
    assert "writes its answers with 7 words" in (model / "README.md").read_text()
    assert main(["test", "--config", str(config), *given, "--ckpt_path", str(model)]) == 0
    results = answers_of(tmp_path / "run/predictions/test.json")
    questions = read_vqa(files["test_questions"], files["test_annotations"])
    assert results.keys() == {record.question_id for record in questions.records}
    assert main(["predict", "--config", str(config), *given, "--output", str(tmp_path / "predicted.json")]) == 0
    assert answers_of(tmp_path / "predicted.json") == results


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(listed_data: Path, tmp_path: Path) -> None:
    def fit(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
        task, data = task_and_data(listed_data, label_smoothing=0.1)
        resumed = folder / "half.ckpt"
        lightning = trainer(folder, **changes)
        lightning.fit(task, data, ckpt_path=resumed if resumed.exists() else None)
        lightning.save_checkpoint(resumed)
        return task.state_dict()

    whole = fit(tmp_path / "whole", max_epochs=4)
    fit(tmp_path / "cut", max_epochs=2)
    for name, value in fit(tmp_path / "cut", max_epochs=4).items():
        assert torch.equal(value, whole[name]), name


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"answers": "choices"}}, "answers in words; set data.answers.kind to words"),
        (
            {"model": {"preset": "modular", "sizes": {"dim": 16}}},
            "answers in choices; set data.answers.kind to choices",
        ),
        ({"model": {"loss": "bce"}}, "trains with 'cross_entropy'"),
        ({"data": {"max_answers": 5}}, "max_count is 5"),
        ({"model": {"sizes": {"num_beam": 2}}}, "no argument 'num_beam'; did you mean 'num_beams'"),
        ({"model": {"label_smoothing": 1.0}}, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    sections: dict, message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = change(config, tmp_path / "writer.yaml", WRITER)
    if sections.get("model", {}).get("preset"):
        settings_now = yaml.safe_load(written.read_text())
        settings_now["model"] |= sections["model"]
        written.write_text(yaml.safe_dump(settings_now))
    else:
        change(written, written, sections)
    assert main(["fit", "--config", str(written)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_classifier_has_no_use_for_label_smoothing() -> None:
    model = build_model(
        "modular", {"dim": 8, "num_heads": 2}, num_words=8, question_dim=None, region_dim=8, num_answers=5
    )
    with pytest.raises(ValueError, match=r"label_smoothing 0\.1 is for models that write"):
        VQATask(model, label_smoothing=0.1)
