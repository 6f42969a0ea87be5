"""Repeat the training of configurations over seeds, or over folds of the images, and compare them by question.

OUT/experiment.json           the settings of the experiment
OUT/folds/fold_F/             with folds: the questions of each fold
OUT/CONFIG/seed_S[_fold_F]/   a run of `coattn fit` and `coattn test`, with their output in fit.log and test.log
OUT/report.json               the report
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.results import read_results
from coattn.datasets.vqa_json import read_vqa, write_vqa
from coattn.metrics.bootstrap import Images, paired_test
from coattn.metrics.score import judge
from coattn.training.data.config import open_data
from coattn.training.data.split import Questions, read_files
from coattn.training.stop_signals import SIGNALS, Stopped

Report = dict[str, Any]

_WORKING: set[subprocess.Popen[bytes]] = set()  # the processes of the runs, to which a signal is passed on


@dataclass(frozen=True)
class Experiment:
    """The plan of an experiment: which configurations are trained, and how often.

    Attributes:
        configs: The configuration files. The first is compared with each of the others.
        out: The folder of the experiment.
        num_seeds: How many seeds each configuration is trained with: 0, 1, ...
        num_folds: 0 to train on the training questions and test on the test questions; K to divide the images of the
            training questions into K parts, train without one of them, and test on it.
        options: Settings for every `coattn fit` and `coattn test`, as on their command lines.
    """

    configs: tuple[Path, ...]
    out: Path
    num_seeds: int
    num_folds: int = 0
    options: tuple[str, ...] = ()

    def run_folder(self, config: Path, seed: int, fold: int | None) -> Path:
        """The folder of one run."""
        return self.out / config.stem / (f"seed_{seed}" if fold is None else f"seed_{seed}_fold_{fold}")

    @property
    def folds(self) -> Sequence[int | None]:
        """The numbers of the folds, or None alone."""
        return range(self.num_folds) if self.num_folds else (None,)


def experiment(plan: Experiment, *, num_jobs: int = 1) -> Report:
    """Make the runs that are missing, and compare all of them.

    An interrupted experiment continues with the same call. Complete runs are kept, also when seeds or configurations
    are added. A signal that stops the experiment is passed on to its runs.

    Args:
        plan: The runs to make.
        num_jobs: How many runs take place at the same time.

    Raises:
        ValueError: Two configurations have the same name, the configurations do not share their questions, there are
            more folds than images, or the folder holds an experiment with other settings.
        ChildProcessError: A run failed.
        Stopped: A signal ended the experiment.
    """
    questions = _shared_questions(plan)
    images = Images([record.image_id for record in questions.records])
    if plan.num_folds > images.count:
        raise ValueError(f"{plan.num_folds} folds need as many images, and the training questions have {images.count}")
    _claim(plan)
    if plan.num_folds:
        _write_folds(plan, questions, images)
    runs = [(config, seed, fold) for seed, fold, config in product(range(plan.num_seeds), plan.folds, plan.configs)]
    pool = ThreadPoolExecutor(num_jobs)
    with SIGNALS.installed():
        try:
            list(pool.map(lambda run: _fit_and_test(plan, *run), runs))
        except Stopped:
            for process in _WORKING.copy():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    report = make_report(plan, questions)
    write_json(plan.out / "report.json", report, indent=1)
    return report


def _shared_questions(plan: Experiment) -> Questions:
    """The questions that every configuration is judged by: of the test split, or with folds of the training split."""
    names = [config.stem for config in plan.configs]
    if len(set(names)) < len(names):
        raise ValueError(f"the configurations need different names: {', '.join(map(str, plan.configs))}")
    split = "train" if plan.num_folds else "test"
    found = [read_files(split, open_data(config).settings) for config in plan.configs]
    for config, questions in zip(plan.configs, found, strict=True):
        if questions != found[0]:
            raise ValueError(f"{config} has other {split} questions than {plan.configs[0]}; compare like with like")
    return found[0]


def _claim(plan: Experiment) -> None:
    """Record the settings of the experiment in its folder.

    Other settings in the folder are replaced if nothing was trained with them.

    Raises:
        ValueError: The folder holds runs with other settings.
    """
    path = plan.out / "experiment.json"
    settings = {"folds": plan.num_folds, "options": list(plan.options)}
    configs = {config.stem: yaml.safe_load(config.read_text(encoding="utf-8")) for config in plan.configs}
    found = read_json(path) if path.exists() else {}
    other = [name for name, value in settings.items() if found.get(name, value) != value]
    other += [name for name, value in configs.items() if found.get("configs", {}).get(name, value) != value]
    if other:
        if any(path for name in ("checkpoints", "model") for path in plan.out.glob(f"*/seed_*/{name}")):
            raise ValueError(
                f"{path} holds an experiment with other settings ({', '.join(other)}); choose another folder (--out)"
            )
        shutil.rmtree(plan.out / "folds", ignore_errors=True)
    write_json(path, settings | {"configs": found.get("configs", {}) | configs})


def _fold_files(plan: Experiment, fold: int) -> dict[str, Path]:
    folder = plan.out / "folds" / f"fold_{fold}"
    names = product(("train", "test"), ("questions", "annotations"))
    return {f"{split}_{kind}": folder / f"{split}_{kind}.json" for split, kind in names}


def _write_folds(plan: Experiment, questions: Questions, images: Images) -> None:
    """Divide the images at random, always in the same way, and write the questions of each fold."""
    fold_of_image = np.random.default_rng(0).permutation(images.count) % plan.num_folds
    for fold in range(plan.num_folds):
        files = _fold_files(plan, fold)
        if not all(path.exists() for path in files.values()):
            held_out = fold_of_image[images.of] == fold
            for split, chosen in (("train", ~held_out), ("test", held_out)):
                records = [questions.records[place] for place in np.flatnonzero(chosen)]
                write_vqa(files["train_questions"].parent, split, records, info={"metric": questions.metric})


def _fit_and_test(plan: Experiment, config: Path, seed: int, fold: int | None) -> None:
    """One run. Complete steps are kept, and an interrupted fit is resumed."""
    folder = plan.run_folder(config, seed, fold)
    common = ["--config", config, "--trainer.default_root_dir", folder, "--trainer.enable_progress_bar", "false"]
    if fold is not None:
        for name, path in _fold_files(plan, fold).items():
            common += [f"--data.files.{name}", path]
    common += plan.options
    with _alone(folder) as lock:
        if not (folder / "model/config.json").exists():
            _coattn(folder, lock, "fit", *common, "--seed_everything", seed, "--resume")
        if not (folder / "predictions/test.json").exists():
            _coattn(folder, lock, "test", *common, "--ckpt_path", folder / "model")


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Wait until no other process works in the folder. A child that inherits the yielded handle counts as working."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _coattn(folder: Path, lock: int, command: str, *arguments: object) -> None:
    """Run a command of coattn and add its seconds of CPU to COMMAND_seconds.json.

    The record says whether the seconds are complete: if this process is killed, they are not.
    """
    words = [command, *map(str, arguments)]
    print(f"coattn {shlex.join(words)}", flush=True)
    # A script that passes its arguments to `coattn.cli.main` is run itself, because it may add layers.
    is_script = sys.argv[1:2] == ["experiment"] and sys.modules["__main__"].__spec__ is None
    program = [sys.argv[0]] if is_script and sys.argv[0].endswith(".py") else ["-m", "coattn"]
    log, record = folder / f"{command}.log", folder / f"{command}_seconds.json"
    spent = read_json(record) if record.exists() else {"seconds": 0.0, "complete": True}
    write_json(record, spent | {"complete": False})
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, *program, *words], stdout=output, stderr=subprocess.STDOUT, pass_fds=(lock,)
        )
        _WORKING.add(process)
        if SIGNALS.received:
            process.terminate()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _WORKING.remove(process)
    write_json(record, spent | {"seconds": round(spent["seconds"] + usage.ru_utime + usage.ru_stime, 1)})
    if process.returncode:
        end = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise ChildProcessError(f"{log}: coattn {command} failed: {' '.join(end)}; the same command continues")


def make_report(plan: Experiment, questions: Questions) -> Report:
    """Accuracy of each configuration by kind of question, and the paired differences from the first, in percent.

    The interval and the p-value of a difference are those of `coattn.metrics.bootstrap.paired_test`, of the mean over
    the seeds of each answer's worth: they hold for other images and for these seeds. The differences by seed and their
    standard deviation show the spread of training, which may be wider.
    """
    worth = {config.stem: _worth(plan, config, questions) for config in plan.configs}  # each (seeds, questions)
    images = Images([record.image_id for record in questions.records])
    report: Report = {
        **{name: value for name, value in asdict(plan).items() if name in ("num_seeds", "num_folds")},
        "metric": questions.metric,
        "accuracy": {
            kind: {"questions": int(chosen.sum())}
            | {name: _spread(values[:, chosen]) for name, values in worth.items()}
            for kind, chosen in _kinds(questions.records).items()
        },
        "CPU seconds of fit": {config.stem: _seconds(plan, config) for config in plan.configs},
        "differences": {},
    }
    (first, ours), *others = worth.items()
    for name, theirs in others:
        difference = paired_test(ours.mean(0), theirs.mean(0), images)
        report["differences"][f"{first} minus {name}"] = {
            "mean": round(100 * difference.value, 2),
            "95 % interval by image": [round(100 * difference.low, 2), round(100 * difference.high, 2)],
            "p": round(difference.p_value, 4),
            **{name: value for name, value in _spread(ours - theirs).items() if name != "mean"},
        }
    return report


def _worth(plan: Experiment, config: Path, questions: Questions) -> np.ndarray:
    """The score of each answer, from 0 to 1, (seeds, questions); NaN where a question does not count."""
    place = {str(record.question_id): number for number, record in enumerate(questions.records)}
    worth = np.full((plan.num_seeds, len(place)), np.nan)
    for seed, fold in product(range(plan.num_seeds), plan.folds):
        records = questions.records
        if fold is not None:
            files = _fold_files(plan, fold)
            records = read_vqa(files["test_questions"], files["test_annotations"]).records
        path = plan.run_folder(config, seed, fold) / "predictions/test.json"
        places = [place[str(record.question_id)] for record in records]
        worth[seed, places] = judge(read_results(path), records, questions.metric, where=str(path)).worth
    return worth


def _kinds(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Which questions are of which answer type and question type."""
    kinds = {"all": np.ones(len(records), bool)}
    for field in ("answer_type", "question_type"):
        values = np.array([getattr(record, field) for record in records])
        kinds |= {f"{field.replace('_', ' ')}: {value}": values == value for value in sorted(set(values) - {""})}
    return kinds


def _spread(worth: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of accuracies, or of their differences, in percent."""
    by_seed = [round(100 * float(np.nanmean(row)), 2) for row in worth]
    deviation = round(statistics.stdev(by_seed), 2) if len(by_seed) > 1 else None
    return {"mean": round(statistics.mean(by_seed), 2), "standard deviation": deviation, "by seed": by_seed}


def _seconds(plan: Experiment, config: Path) -> list[float]:
    """The seconds of CPU of each complete record of a fit."""
    runs = product(range(plan.num_seeds), plan.folds)
    records = [read_json(plan.run_folder(config, seed, fold) / "fit_seconds.json") for seed, fold in runs]
    return [record["seconds"] for record in records if record["complete"]]


def format_report(report: Report) -> str:
    """The report as text: a row per kind of question, a column per configuration, and the differences."""
    names = list(report["CPU seconds of fit"])
    rows = [[f"{report['metric']}, %", "questions", *names]]
    for kind, row in report["accuracy"].items():
        rows.append([kind, str(row["questions"]), *(format_spread(row[name]) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for name, found in report["differences"].items():
        low, high = found["95 % interval by image"]
        seeds = ", ".join(f"{value:+.2f}" for value in found["by seed"])
        deviation = found["standard deviation"]
        spread = "" if deviation is None else f" (standard deviation {deviation:.2f}, not part of the interval)"
        lines += [
            "",
            f"{name}: {found['mean']:+.2f} (95 % interval {low:+.2f} to {high:+.2f} by image, p = {found['p']})",
            f"  by seed: {seeds}{spread}",
        ]
    return "\n".join(lines)


def format_spread(found: dict[str, Any]) -> str:
    """Mean and standard deviation as text."""
    deviation = found["standard deviation"]
    return f"{found['mean']:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
