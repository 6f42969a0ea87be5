"""Experiments: what is run, what is kept, and what the report says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from coattn._internal.files import read_json, write_json
from coattn.cli import main
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa, write_vqa
from coattn.training import experiment as module
from coattn.training.experiment import Experiment, experiment, format_report
from coattn.training.stop_signals import Stopped

NUM_QUESTIONS = 40


@pytest.fixture
def configs(tmp_path: Path) -> tuple[Path, Path]:
    """Two configurations of the same data: questions of 20 images, two each, all with the answer yes."""
    files: dict[str, str] = {}
    for split in ("train", "test"):
        records = [
            Record(n, n // 2, "?", ("yes",), answer_type="other" if n % 2 else "yes/no") for n in range(NUM_QUESTIONS)
        ]
        questions, annotations = write_vqa(tmp_path / "data", split, records, info={"metric": "exact_match"})
        files |= {f"{split}_questions": str(questions), f"{split}_annotations": str(annotations)}
    paths = tuple(tmp_path / f"{name}.yaml" for name in ("ours", "blind"))
    for path in paths:
        path.write_text(yaml.safe_dump({"data": {"features": "none", "files": files}}))
    return paths


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the commands: they are noted, and answer; "blind" is wrong on odd questions, seed 1 on question 0."""
    calls: list[list[str]] = []

    def coattn(folder: Path, lock: int, command: str, *arguments: object) -> None:
        words = [command, *map(str, arguments)]
        calls.append(words)
        if command == "fit":
            write_json(folder / "model/config.json", {})
            write_json(folder / "fit_seconds.json", {"seconds": 2.0, "complete": True})
            return
        option = "--data.files.test_questions"
        questions = (
            words[words.index(option) + 1] if option in words else folder.parents[2] / "data/test_questions.json"
        )
        numbers = [entry["question_id"] for entry in read_json(questions)["questions"]]
        wrong = {0} if "seed_1" in folder.name else set()
        wrong |= {n for n in numbers if n % 2} if "blind" in folder.parts else set()
        answers = [{"question_id": n, "answer": "no" if n in wrong else "yes"} for n in numbers]
        write_json(folder / "predictions/test.json", answers)

    monkeypatch.setattr(module, "_coattn", coattn)
    return calls


def test_every_configuration_is_trained_with_every_seed_once(
    configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path
) -> None:
    plan = Experiment(configs, tmp_path / "out", 2, options=("--trainer.max_epochs", "1"))
    experiment(plan, num_jobs=2)
    assert len(calls) == 8
    folder = tmp_path / "out/ours/seed_1"
    (fit,) = [words for words in calls if words[0] == "fit" and str(folder) in words]
    common = ["--config", str(configs[0]), "--trainer.default_root_dir", str(folder)]
    assert fit[1:5] == common
    assert fit[-5:] == ["--trainer.max_epochs", "1", "--seed_everything", "1", "--resume"]
    experiment(plan)
    assert len(calls) == 8
    (folder / "predictions/test.json").unlink()
    experiment(plan)
    assert [words[0] for words in calls[8:]] == ["test"]


def test_the_report_has_spread_and_paired_difference(
    configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path
) -> None:
    report = experiment(Experiment(configs, tmp_path / "out", 2))
    assert report == read_json(tmp_path / "out/report.json")
    everything = report["accuracy"]["all"]
    assert everything["ours"] == {"mean": 98.75, "standard deviation": 1.77, "by seed": [100.0, 97.5]}
    assert everything["blind"]["by seed"] == [50.0, 47.5]
    assert report["accuracy"]["answer type: other"]["questions"] == 20
    assert report["accuracy"]["answer type: other"]["blind"]["mean"] == 0
    difference = report["differences"]["ours minus blind"]
    assert difference["mean"] == 50
    assert difference["by seed"] == [50.0, 50.0]
    assert difference["standard deviation"] == 0
    assert difference["95 % interval by image"] == [25.83, 58.06]  # each of 20 images has a right and a wrong answer
    assert difference["p"] < 0.001
    lines = format_report(report).splitlines()
    assert lines[0].split() == ["exact_match,", "%", "questions", "ours", "blind"]
    assert lines[1].split() == ["all", "40", "98.75", "±", "1.77", "48.75", "±", "1.77"]
    assert lines[5] == "ours minus blind: +50.00 (95 % interval +25.83 to +58.06 by image, p = 0.0001)"
    assert lines[6] == "  by seed: +50.00, +50.00 (standard deviation 0.00, not part of the interval)"


def test_folds_divide_the_images(configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path) -> None:
    report = experiment(Experiment(configs[:1], tmp_path / "out", 1, 3))
    assert report["accuracy"]["all"]["questions"] == NUM_QUESTIONS
    assert report["accuracy"]["all"]["ours"]["by seed"] == [100.0]
    tested = []
    for fold in range(3):
        folder = tmp_path / f"out/folds/fold_{fold}"
        train, test = (
            read_vqa(folder / f"{split}_questions.json", folder / f"{split}_annotations.json").records
            for split in ("train", "test")
        )
        assert not {record.image_id for record in train} & {record.image_id for record in test}
        assert len(train) + len(test) == NUM_QUESTIONS
        assert 12 <= len(test) <= 14
        tested += [record.question_id for record in test]
        assert any(str(folder / "train_questions.json") in words for words in calls if words[0] == "fit")
    assert sorted(tested) == list(range(NUM_QUESTIONS))


def test_another_experiment_in_the_folder_is_refused(
    configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path
) -> None:
    experiment(Experiment(configs, tmp_path / "out", 1))
    with pytest.raises(ValueError, match=r"holds an experiment with other settings \(options\); choose another folder"):
        experiment(Experiment(configs, tmp_path / "out", 1, options=("--trainer.max_epochs", "9")))
    experiment(Experiment(configs, tmp_path / "out", 2))
    assert len(calls) == 8
    configs[0].write_text(f"# A comment changes nothing.\n{configs[0].read_text()}")
    experiment(Experiment(configs[:1], tmp_path / "out", 2))
    configs[1].write_text(f"{configs[1].read_text()}\nseed_everything: 3\n")
    with pytest.raises(ValueError, match=r"other settings \(blind\)"):
        experiment(Experiment(configs, tmp_path / "out", 2))


def test_settings_with_which_nothing_was_trained_are_replaced(
    configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path
) -> None:
    plan = Experiment(configs, tmp_path / "out", 1, 3, options=("--nonsense",))
    module._claim(plan)
    (plan.out / "folds/fold_0").mkdir(parents=True)
    experiment(Experiment(configs, plan.out, 1, 2))
    assert sorted(path.name for path in (plan.out / "folds").iterdir()) == ["fold_0", "fold_1"]


def test_more_folds_than_images_are_refused(configs: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="21 folds need as many images, and the training questions have 20"):
        experiment(Experiment(configs, tmp_path / "out", 1, 21))
    assert not (tmp_path / "out").exists()


def test_a_signal_is_passed_on_to_the_runs(
    configs: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, log = tmp_path / "program", tmp_path / "out/ours/seed_0/fit.log"
    program.write_text("#!/bin/sh\ntrap 'echo stopped; kill $!; exit 143' TERM\nsleep 60 &\necho started\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def stop() -> None:
        while not (log.exists() and "started" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match=str(128 + signal.SIGTERM)):
        experiment(Experiment(configs, tmp_path / "out", 1))
    assert log.read_text().split() == ["started", "stopped"]
    assert not (tmp_path / "out/blind").exists()


def test_configurations_with_other_questions_are_refused(configs: tuple[Path, ...], tmp_path: Path) -> None:
    write_vqa(tmp_path / "other", "test", [Record(1, 1, "?", ("no",))], info={"metric": "exact_match"})
    changed = yaml.safe_load(configs[1].read_text())
    for kind in ("questions", "annotations"):
        changed["data"]["files"][f"test_{kind}"] = str(tmp_path / f"other/test_{kind}.json")
    configs[1].write_text(yaml.safe_dump(changed))
    with pytest.raises(ValueError, match="has other test questions than"):
        experiment(Experiment(configs, tmp_path / "out", 1))
    assert not (tmp_path / "out").exists()
    configs[1].write_text("data: [")
    with pytest.raises(ValueError, match=r"blind\.yaml: not a training configuration"):
        experiment(Experiment(configs, tmp_path / "out", 1))
    with pytest.raises(ValueError, match="need different names"):
        experiment(Experiment((configs[0], configs[0]), tmp_path / "out", 1))


def test_a_failed_command_is_reported_and_its_seconds_count(tmp_path: Path) -> None:
    with module._alone(tmp_path) as lock, pytest.raises(ChildProcessError, match=r"test\.log: coattn test failed: .*"):
        module._coattn(tmp_path, lock, "test", "--no-such-option")
    found = read_json(tmp_path / "test_seconds.json")
    assert found["complete"]
    assert found["seconds"] > 0


def test_a_script_with_layers_of_its_user_makes_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "my_layers.py"
    script.write_text("import sys\nprint('mine', *sys.argv[1:])\n")
    monkeypatch.setattr(sys, "argv", [str(script), "experiment", "ours.yaml"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with module._alone(tmp_path) as lock:
        module._coattn(tmp_path, lock, "fit", "--resume")
    assert (tmp_path / "fit.log").read_text() == "mine fit --resume\n"


def test_a_run_waits_for_the_child_of_a_killed_process(tmp_path: Path) -> None:
    with module._alone(tmp_path / "run") as lock:
        orphan = subprocess.Popen(["sleep", "1"], pass_fds=(lock,))
    with module._alone(tmp_path / "run"):
        assert orphan.wait(timeout=0.5) == 0  # it ended before the lock was free


def test_the_command_passes_settings_on(
    configs: tuple[Path, ...], calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "1", "--out", str(tmp_path / "out"), "--", "--trainer.max_epochs", "1"]
    assert main(["experiment", *map(str, configs), *options]) == 0
    assert all("--trainer.max_epochs" in words for words in calls)
    assert "ours minus blind: +50.00" in capsys.readouterr().out
    assert main(["experiment", str(configs[0]), "--folds", "1"]) == 2


@pytest.mark.slow
def test_a_real_experiment_learns(config: Path, tmp_path: Path) -> None:
    options = ("--trainer.max_epochs", "8", "--trainer.accelerator", "cpu")
    report = experiment(Experiment((config,), tmp_path / "out", 2, options=options))
    assert len(report["accuracy"]["all"]["tiny"]["by seed"]) == 2
    assert np.all(np.array(report["CPU seconds of fit"]["tiny"]) > 0)
