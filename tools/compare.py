"""The comparison: models of about equal size on easy-VQA, some of them on Sort-of-CLEVR, three seeds each, one table.

    tools/compare                           makes what is missing, one run after the other, and prints the table
    tools/compare --jobs 2                  two runs at a time, for example one per core
    tools/compare --only sort_of_clevr      only the configurations with that in their names; may be given repeatedly
    tools/compare --report                  only writes the table of benchmarks/experiments/comparison.json into docs/

A run trains with one of configs/compare/*.yaml and a seed, keeps the weights that are best on the validation questions,
and answers the test questions once. Killed at any moment and started again, a run goes on from its last checkpoint, and
one that is complete is never repeated. Each is these commands, in runs/compare/NAME/seed_SEED:

    coattn fit --config configs/compare/NAME.yaml --seed_everything SEED --trainer.default_root_dir FOLDER --resume
    coattn validate | test --config configs/compare/NAME.yaml --trainer.default_root_dir FOLDER --ckpt_path FOLDER/model
"""

from __future__ import annotations

import argparse
import fcntl
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa
from coattn.metrics.score import score
from coattn.nn import VQAModel
from coattn.serialization.directory import load_directory
from coattn.training.batches import Batch
from coattn.training.data import VQADataModule
from pages import DOCS, write_generated

SEEDS = (0, 1, 2)
REPORT = Path("benchmarks/experiments/comparison.json")
MODELS = {
    "hiecoatt_parallel": "HieCoAtt parallel",
    "hiecoatt_alternating": "HieCoAtt alternating",
    "dcn": "DCN",
    "mcan": "MCAN",
    "butd": "BUTD",
    "ban": "BAN",
    "gated": "gated stack",
}
# How to get the data sets that the configurations are named after; {folder} is what --sort-of-clevr says.
DATA = {
    "easy_vqa": ("easy-VQA", ["prepare", "easy-vqa", "data/easy_vqa"], []),
    "sort_of_clevr": (
        "Sort-of-CLEVR",
        ["prepare", "sort-of-clevr", "{folder}", "data/sort_of_clevr"],
        ["--extractor", "objects"],
    ),
}
_NUM_COUNTED = 100  # questions that the operations are counted for


class Config(NamedTuple):
    """A configuration: its file, and the data set and model that it is named after."""

    path: Path
    data: str
    model: str

    def folder(self, seed: int) -> Path:
        """Where the run of a seed is."""
        return Path("runs/compare", self.path.stem, f"seed_{seed}")


def main() -> None:
    """Make what is missing, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time (%(default)s)")
    add("--seeds", type=int, default=len(SEEDS), metavar="N", help="only the first N seeds (%(default)s)")
    add("--only", action="append", default=[], metavar="TEXT", help="only configurations with TEXT in their names")
    add("--sort-of-clevr", metavar="FOLDER", help="its files, until they are prepared in data/sort_of_clevr")
    add("--report", action="store_true", help="run nothing; write the table of the report into docs/comparison.md")
    arguments = parser.parse_args()
    if arguments.report:
        write_generated(DOCS / "comparison.md", "tools/compare", format_table(read_json(REPORT)))
        return
    configs = find_configs()
    chosen = [
        config for config in configs if not arguments.only or any(text in config.path.stem for text in arguments.only)
    ]
    if not chosen:
        parser.error(f"--only: none of {', '.join(config.path.stem for config in configs)} is called so")
    for data in dict.fromkeys(config.data for config in chosen):
        prepare(data, arguments.sort_of_clevr)
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        list(
            pool.map(
                lambda run: fit_and_test(*run),
                [(config, seed) for seed in SEEDS[: arguments.seeds] for config in chosen],
            )
        )
    finally:
        pool.shutdown(cancel_futures=True)
    report = make_report(configs)
    write_json(REPORT, report, indent=1)
    print(f"\n{format_table(report)}\n{REPORT}: the same with the scores of each seed")
    write_generated(DOCS / "comparison.md", "tools/compare", format_table(report))


def find_configs() -> list[Config]:
    """All configurations, in the order of DATA and MODELS."""
    names = [(data, model) for data in DATA for model in MODELS]
    configs = [Config(Path("configs/compare", f"{data}_{model}.yaml"), data, model) for data, model in names]
    return [config for config in configs if config.path.exists()]


def prepare(data: str, folder: str | None) -> None:
    """Prepare a data set and extract its features, unless that was done."""
    _, command, options = DATA[data]
    log = Path("runs/compare", f"{data}.log")
    with alone(log.parent) as lock:
        if not Path("data", data, "report.json").exists():
            if folder is None and "{folder}" in command:
                sys.exit("tools/compare: say where the files of Sort-of-CLEVR are: --sort-of-clevr FOLDER")
            coattn(log, *(part.format(folder=folder) for part in command), lock=lock)
        coattn(log, "extract", f"data/{data}/images.json", f"data/{data}/features", *options, lock=lock)


def fit_and_test(config: Config, seed: int) -> None:
    """One run; what is complete is kept."""
    run = config.folder(seed)
    common = ["--config", config.path, "--trainer.default_root_dir", run, "--trainer.enable_progress_bar", "false"]
    with alone(run) as lock:
        if not (run / "model/config.json").exists():
            resume = ["--seed_everything", seed, "--resume"]
            coattn(run / "fit.log", "fit", *common, *resume, lock=lock, clock=run / "clock.json")
        for command, split in (("validate", "val"), ("test", "test")):
            if not (run / "predictions" / f"{split}.json").exists():
                coattn(run / f"{command}.log", command, *common, "--ckpt_path", run / "model", lock=lock)


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Wait until no other process works in the folder; whoever inherits what is yielded counts as working there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def coattn(log: Path, *arguments: object, lock: int, clock: Path | None = None) -> None:
    """Run a command, its output at the end of `log`; stop everything if it fails.

    It inherits `lock`, so that where this process is killed the next one waits for it. The seconds of CPU that it takes
    are added to `clock`, which says whether they are the whole: not after a kill, for then nobody knows.
    """
    command = [str(Path(sys.executable).with_name("coattn")), *map(str, arguments)]
    print(" ".join(["coattn", *command[1:]]), flush=True)
    spent = read_json(clock) if clock is not None and clock.exists() else {"seconds": 0.0, "whole": True}
    if clock is not None:
        write_json(clock, spent | {"whole": False})
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, pass_fds=(lock,))
    _, status, usage = os.wait4(process.pid, 0)
    if clock is not None:
        write_json(clock, {**spent, "seconds": round(spent["seconds"] + usage.ru_utime + usage.ru_stime, 1)})
    if status:
        end = log.read_text(errors="replace")[-2000:]
        sys.exit(f"{end}\n{log}: that failed; run tools/compare again to go on from there")


def make_report(configs: Sequence[Config]) -> dict[str, Any]:
    """Everything that is known, by data set and model: of the runs that are complete."""
    report: dict[str, Any] = {}
    for config in configs:
        seeds = [seed for seed in SEEDS if (config.folder(seed) / "predictions/test.json").exists()]
        if seeds:
            runs = [config.folder(seed) for seed in seeds]
            clocks = [read_json(run / "clock.json") for run in runs]
            report.setdefault(config.data, {})[config.model] = {
                "config": str(config.path),
                "seeds": seeds,
                "test": spread(runs, config.data, "test"),
                "validation": spread(runs, config.data, "val"),
                "CPU seconds of training": [clock["seconds"] for clock in clocks if clock["whole"]],
                **size(runs[0]),
            }
    return report


def spread(runs: Sequence[Path], data: str, split: str) -> dict[str, dict[str, Any]]:
    """Accuracy in percent, over all questions and for each type: mean, standard deviation, and each run's."""
    records = questions(data, split)
    found = []
    for run in runs:
        answers = {entry["question_id"]: entry["answer"] for entry in read_json(run / "predictions" / f"{split}.json")}
        scores = score(answers, records, "exact_match")
        found.append({"all": scores.overall, **scores.by_question_type})
    table = {}
    for kind in found[0]:
        values = [scores[kind] for scores in found]
        deviation = round(statistics.stdev(values), 2) if len(values) > 1 else None
        table[kind] = {"mean": round(statistics.mean(values), 2), "standard deviation": deviation, "by seed": values}
    return table


@cache
def questions(data: str, split: str) -> list[Record]:
    """The records of a split."""
    folder = Path("data", data)
    return read_vqa(folder / f"{split}_questions.json", folder / f"{split}_annotations.json").records


def size(run: Path) -> dict[str, float]:
    """Parameters, and floating-point operations of a forward pass per question."""
    model = load_directory(run / "model").model
    settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
    split = VQADataModule(**settings | {"vocabulary_from": str(run / "model")}).split("test")
    chosen = np.linspace(0, len(split.records) - 1, _NUM_COUNTED).astype(int)
    batches = [split.batch(chosen[[i]]) for i in range(len(chosen))]
    operations = sum(count_operations(model, batch) for batch in batches) / len(batches)
    return {"parameters": sum(p.numel() for p in model.parameters()), "FLOPs per question": round(operations)}


def count_operations(model: VQAModel, batch: Batch) -> int:
    """Multiplications and additions of all matrix products in one forward pass of a batch."""
    # oneDNN's LSTM is one operation whose inside is not counted.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(
            batch.question,
            batch.regions.float(),
            question_mask=batch.question_mask,
            region_mask=batch.region_mask,
            boxes=batch.boxes,
            image_sizes=batch.image_sizes,
        )
    return counter.get_total_flops()


def format_table(report: dict[str, Any]) -> str:
    """The table in Markdown, aligned for people: a column per model, a row per data set and kind of question."""
    models = [model for model in MODELS if any(model in found for found in report.values())]
    rows = [["test accuracy, %", *(MODELS[model] for model in models)]]
    for data, found in report.items():
        title = DATA[data][0]
        kinds = next(iter(found.values()))["test"]
        for kind in ["all", *sorted(set(kinds) - {"all"}, key=list(kinds).index)]:
            rows.append([f"{title}, {kind}", *(_accuracy(found.get(model), kind) for model in models)])
    for name, key, scale in (
        ("thousand parameters", "parameters", 1e3),
        ("MFLOPs per question", "FLOPs per question", 1e6),
        ("CPU seconds of training", "CPU seconds of training", 1.0),
    ):
        for data, found in report.items():
            rows.append([f"{DATA[data][0]}, {name}", *(_number(found.get(model), key, scale) for model in models)])
    for data, found in report.items():
        counts = (len(found[model]["seeds"]) if model in found else "-" for model in models)
        rows.append([f"{DATA[data][0]}, seeds", *map(str, counts)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    first = [row[0].ljust(widths[0]) for row in rows]
    cells = [[cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)] for row in rows]
    return "".join(f"| {' | '.join([name, *row])} |\n" for name, row in zip(first, cells, strict=True))


def _accuracy(found: dict[str, Any] | None, kind: str) -> str:
    if found is None:
        return "-"
    entry = found["test"][kind]
    deviation = entry["standard deviation"]
    return f"{entry['mean']:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")


def _number(found: dict[str, Any] | None, key: str, scale: float) -> str:
    values = [] if found is None else found[key] if isinstance(found[key], list) else [found[key]]
    if not values:
        return "-"
    value = statistics.mean(values) / scale
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    main()
