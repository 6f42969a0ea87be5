from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import RECORD, change, settings, write_store

from coattn.cli import main
from coattn.features.store.reader import FeatureStore
from coattn.serialization.directory import load_directory
from coattn.text.vocabulary import AnswerVocabulary
from coattn.training.checkpoints import read_checkpoint
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import results_by_question


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[Path, Path]:
    """A configuration, and the folder of its finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(settings(tiny_data, folder / "run")))
    assert main(["fit", "--config", str(config)]) == 0
    return config, folder / "run"


def run(command: str, config: Path, *arguments: object) -> int:
    return main([command, "--config", str(config), *map(str, arguments)])


def test_fit_leaves_a_whole_run(finished: tuple[Path, Path]) -> None:
    _, root = finished
    assert {path.name for path in (root / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    version = root / "logs" / "version_0"
    assert any("tfevents" in path.name for path in version.iterdir())
    assert {"train/loss", "val/accuracy", "val/loss", "lr"} <= set(
        (version / "metrics.csv").read_text().split("\n")[0].split(",")
    )
    assert yaml.safe_load((root / "config.yaml").read_text())["model"]["sizes"]["dim"] == 16
    directory = load_directory(root / "model")
    assert directory.metric == "exact_match"
    assert directory.activation == "sigmoid"
    assert 0.05 <= directory.temperature <= 20
    assert directory.extractor == RECORD
    best = read_checkpoint(root / "checkpoints" / "best.ckpt")["state_dict"]
    for name, tensor in directory.model.state_dict().items():
        assert torch.equal(tensor, best[f"model.{name}"])


def test_card_holds_data_scores_and_calibration(finished: tuple[Path, Path]) -> None:
    card = (finished[1] / "model" / "README.md").read_text()
    for text in (
        "44 questions on 9 images",
        "all 13 questions",
        "answer type: yes/no",
        "calibration error",
        "coattn ask",
    ):
        assert text in card
    assert "None" not in card
    front = yaml.safe_load(card.split("---")[1])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == front["metrics"][0]
    assert f"**{result['metrics'][0]['value']:.2f}**" in card


def test_test_and_predict_agree_with_score(
    finished: tuple[Path, Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = finished
    files = [f"--{kind}={tiny_data}/test_{kind}.json" for kind in ("questions", "annotations")]
    assert run("test", config) == 0
    table = capsys.readouterr().out
    predicted = {}
    for name, which in {"best": "best", "model": root / "model", "file": root / "checkpoints" / "best.ckpt"}.items():
        output = tmp_path / f"{name}.json"
        assert run("predict", config, "--ckpt_path", which, "--output", output) == 0
        predicted[name] = json.loads(output.read_text())
    assert predicted["best"] == predicted["file"] == json.loads((root / "predictions/test.json").read_text())
    assert [result.keys() for result in predicted["best"]] == [{"question_id", "answer", "confidence"}] * 11
    temperature = load_directory(root / "model").temperature
    for raw, calibrated in zip(predicted["best"], predicted["model"], strict=True):
        assert raw["answer"] == calibrated["answer"]
        logit = math.log(raw["confidence"] / (1 - raw["confidence"]))  # the loss of the run is "bce"
        assert calibrated["confidence"] == pytest.approx(1 / (1 + math.exp(-logit / temperature)), abs=1e-4)
    capsys.readouterr()
    assert main(["score", str(tmp_path / "best.json"), *files]) == 0
    for paragraph in capsys.readouterr().out.strip().split("\n\n"):
        assert paragraph in table
    assert run("validate", config) == 0


def test_predict_writes_what_a_server_takes(finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config, root = finished
    assert run("predict", config, "--format", "gqa") == 0
    entries = json.loads((root / "predictions/test.gqa.json").read_text())
    assert {tuple(entry) for entry in entries} == {("questionId", "prediction")}
    assert run("predict", config, "--format", "clevr") == 0
    lines = (root / "predictions/test.clevr.txt").read_text().splitlines()
    assert lines == [entry["prediction"] for entry in entries]
    assert run("predict", config, "--format", "coco") == 2
    assert "--format is 'coco', must be one of vqa, gqa, clevr, vizwiz" in capsys.readouterr().err


def test_a_limited_prediction_answers_a_sample_and_says_so(finished: tuple[Path, Path], tmp_path: Path) -> None:
    options = ("--data.batches.eval_size", "4", "--trainer.limit_predict_batches", "1", "--output", tmp_path / "4.json")
    with pytest.warns(UserWarning, match="only 4 of 11 questions are answered, a fixed random sample"):
        assert run("predict", finished[0], *options) == 0
    assert len(json.loads((tmp_path / "4.json").read_text())) == 4


def test_answers_are_written_as_people_type_them(tiny_data: Path, tmp_path: Path) -> None:
    for file in tiny_data.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text().replace('"red"', '"Dark-Red"'))
    (tmp_path / "features.h5").symlink_to(tiny_data / "features.h5")
    data = VQADataModule(**settings(tmp_path, tmp_path)["data"])
    answers = data.text.vocabularies.answers
    assert isinstance(answers, AnswerVocabulary)
    assert answers.form == "plain"
    numbers = np.full(11, answers.index["dark-red"])
    assert set(results_by_question(data, "test", numbers).answers.values()) == {"Dark-Red"}


@pytest.mark.filterwarnings("ignore:trainer.max_epochs was")
def test_a_run_is_not_overwritten_unasked(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = finished
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "notes.txt").write_text("mine")
    here = ("--trainer.default_root_dir", copy)
    assert run("fit", config, *here) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert run("fit", config, *here, "--overwrite", "--data.files.val_questions", "nowhere.json") == 2
    assert (copy / "model" / "config.json").exists(), "a mistake must not cost the old run"
    assert run("fit", config, *here, "--overwrite", "--trainer.max_epochs", 1) == 0
    assert read_checkpoint(copy / "checkpoints" / "last.ckpt")["epoch"] == 0
    assert (copy / "notes.txt").exists()
    assert [path.name for path in (copy / "logs").iterdir()] == ["version_0"]
    assert run("fit", config, *here, "--resume", "--trainer.max_epochs", 2) == 0
    assert read_checkpoint(copy / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert sorted(path.name for path in (copy / "logs").iterdir()) == ["version_0", "version_1"]


def test_without_validation_the_last_weights_are_kept(config: Path, tmp_path: Path) -> None:
    config = change(
        config,
        tmp_path / "changed.yaml",
        {"data": {"val_questions": None, "val_annotations": None}, "trainer": {"max_epochs": 1}},
    )
    assert run("fit", config) == 0
    directory = load_directory(tmp_path / "run" / "model")
    assert directory.temperature == 1
    assert "no validation questions" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_output_that_is_no_terminal_gets_a_line_for_each_epoch(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2", "--trainer.enable_progress_bar=true"]
    assert run("fit", config, *options) == 0
    text = capsys.readouterr().err
    assert [line.split("  ")[0] for line in text.splitlines() if line.startswith("epoch")] == ["epoch 0", "epoch 1"]
    assert "\r" not in text
    assert "Seed set to" not in text


def test_early_stopping(config: Path, tmp_path: Path) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 1000.0}}
    config = change(config, tmp_path / "changed.yaml", {"trainer": {"callbacks": [stop], "max_epochs": 50}})
    assert run("fit", config) == 0
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 1


def test_the_saved_configuration_repeats_the_run(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, root = finished
    assert run("fit", root / "config.yaml", "--trainer.default_root_dir", tmp_path / "again") == 0
    first, again = (load_directory(folder / "model").model.state_dict() for folder in (root, tmp_path / "again"))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_a_trial_leaves_nothing(config: Path, tmp_path: Path) -> None:
    assert run("fit", config, "--trainer.fast_dev_run", "true") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:trainer.max_epochs was")
def test_going_on_from_another_run_finds_its_own_best(finished: tuple[Path, Path], tmp_path: Path) -> None:
    config, root = finished
    # Its best score is out of reach: another run must not wait for a better one.
    checkpoint = torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["best_score"] = 101.0
    torch.save(checkpoint, tmp_path / "other.ckpt")
    where = ("--trainer.default_root_dir", tmp_path / "run", "--trainer.max_epochs", 4)
    assert run("fit", config, *where, "--ckpt_path", tmp_path / "other.ckpt") == 0
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_one_seed_rules_everything(config: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        assert (
            run(
                "fit",
                config,
                "--trainer.default_root_dir",
                tmp_path / name,
                "--seed_everything",
                seed,
                "--trainer.max_epochs=1",
            )
            == 0
        )
        return torch.cat(
            [value.flatten() for value in load_directory(tmp_path / name / "model").model.state_dict().values()]
        )

    first, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.batchsize", "3"], "no setting 'data.batchsize'; did you mean 'data.batches"),
        (["--trainer.max-epochs", "3"], "no setting 'trainer.max-epochs'; did you mean 'trainer.max_epochs'?"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'?"),
        (["--model.sizes.dims", "3"], "no argument 'dims'; did you mean 'dim'?"),
        (["--model.preset", "modulr"], "did you mean 'modular'?"),
        (["--model.num_words", "3"], "model.num_words follows from the data"),
        (["--model.optimizer.lr", "fast"], "model.optimizer.lr"),
        (["--model.loss.name", "mse"], "bce"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["--data.features", "nowhere.h5"], "nowhere.h5"),
        (["--data.seed", "-1"], "seed must not be negative"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", config, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("coattn: error: ") or "\ncoattn: error: " in errors
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"lrr": 1.0}}, "no setting 'model.lrr'; "),
        ({"model": {"num_answers": 3}}, "model.num_answers is set to 3, but follows from the data"),
        ({"optimizer": {"lr": 1.0}}, "no setting 'optimizer.lr'; did you mean 'model.optimizer.lr'?"),
        ({"data": {"batch_size": "many"}}, "data.batches.size"),
    ],
)
def test_mistakes_in_the_file(
    sections: dict, message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", change(config, tmp_path / "changed.yaml", sections)) == 2
    assert message in capsys.readouterr().err


def test_damaged_yaml_and_checkpoint(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [")
    assert run("fit", broken) == 2
    assert "broken.yaml" in capsys.readouterr().err
    checkpoint = tmp_path / "broken.ckpt"
    checkpoint.write_bytes(b"PK\x03\x04 nothing")
    assert run("fit", config, "--ckpt_path", checkpoint) == 2
    assert "broken.ckpt: not a readable checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"sizes": {"num_heads": 4}}}, "sizes was "),
        ({"model": {"lr": 0.5}}, "lr was 0.005, is 0.5"),
        ({"data": {"batch_size": 4}}, "data.batches.size was 8, is 4"),
        ({"seed_everything": 4}, "seed was 3, is 4"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches was 1, is 2"),
        ({"data": {"max_tokens": 3}}, "max_tokens None, not 3"),
    ],
)
def test_going_on_with_other_settings_is_refused(
    sections: dict, message: str, finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = change(finished[0], tmp_path / "other.yaml", sections)
    arguments = (
        "--trainer.default_root_dir",
        tmp_path / "run",
        "--ckpt_path",
        finished[1] / "checkpoints" / "last.ckpt",
    )
    assert run("fit", path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_features_of_another_extractor_are_refused(
    finished: tuple[Path, Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = finished
    ids = FeatureStore(tiny_data / "features.h5").image_ids
    foreign = write_store(tmp_path / "foreign.h5", ids, record={**RECORD, "settings": {"size": 9}})
    narrow = write_store(tmp_path / "narrow.h5", ids, dim=4)
    for which in ("best", root / "model"):
        assert run("test", config, "--data.features", foreign, "--ckpt_path", which) == 2
        assert "settings.size 8 there, 9 here" in capsys.readouterr().err
    for allow in (["--data.allow_other_features", "true"], ["--allow-other-features"]):
        with pytest.warns(UserWarning, match="settings.size 8 there, 9 here"):
            assert run("test", config, "--data.features", foreign, *allow) == 0
    assert run("test", config, "--data.features", narrow) == 2
    assert "region_dim was 8, is 4" in capsys.readouterr().err


def test_a_model_on_words_refuses_embeddings(
    finished: tuple[Path, Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "questions.h5", ["what colour?"])
    assert run("test", finished[0], "--data.text.embeddings", store) == 2
    assert "this model reads words, but data.text.embeddings is" in capsys.readouterr().err


def test_settings_of_a_vocabulary_that_is_brought_are_named(finished: tuple[Path, Path], tmp_path: Path) -> None:
    config, root = finished
    brought = ("--data.vocabulary_from", root / "model", "--data.answers.max_count", 2)
    trial = ("--trainer.fast_dev_run", "true", "--trainer.default_root_dir", tmp_path)
    with pytest.warns(UserWarning, match="data.answers.max_count has no effect, because"):
        assert run("fit", config, *brought, *trial) == 0


def test_unknown_words_and_answers_do_not_change_a_saved_model(
    finished: tuple[Path, Path], tiny_data: Path, tmp_path: Path
) -> None:
    config, _ = finished
    questions = json.loads((tiny_data / "test_questions.json").read_text())
    for question in questions["questions"]:
        question["question"] = "completely different words"
    other = tmp_path / "other_questions.json"
    other.write_text(json.dumps(questions))
    arguments = (
        "--data.files.train_questions",
        other,
        "--data.files.test_questions",
        other,
        "--output",
        tmp_path / "out.json",
    )
    assert run("predict", config, *arguments) == 0
    assert len(json.loads((tmp_path / "out.json").read_text())) == 11


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit) as exit:
            main([command, "--help"])
        assert exit.value.code == 0
        text = capsys.readouterr().out
        assert f"example: coattn {command} --config" in text
        assert "--data.batches.size" in text
