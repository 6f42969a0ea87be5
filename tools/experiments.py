"""Run the recorded experiments: which configurations, how many seeds, and the tables of docs/comparison.md.

    tools/experiments easy_vqa                             six published models, three seeds each
    tools/experiments sort_of_clevr --data FOLDER          the same kind of comparison on relations, one seed each
    tools/experiments daquar                               co-attention and question-only, five seeds each
    tools/experiments daquar_generator                     written and chosen answers, three seeds each
    tools/experiments report                               write docs/comparison.md from the recorded results

Each prepares its data if they are missing and runs `coattn experiment` in runs/experiments/NAME. easy_vqa and
sort_of_clevr then record their results in benchmarks/experiments/comparison.json and write the page; the others record
theirs in benchmarks/experiments/NAME.json. The data of DAQUAR are prepared by the commands in the header of
configs/daquar.yaml.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from coattn._internal.files import read_json, write_json
from coattn.nn import VQAModel
from coattn.serialization.directory import load_directory
from coattn.training.data.batches import Batch
from coattn.training.data.config import open_data
from coattn.training.experiment import format_spread
from pages import DOCS, write_generated

MODELS = {
    "hiecoatt_parallel": "HieCoAtt parallel",
    "hiecoatt_alternating": "HieCoAtt alternating",
    "dcn": "DCN",
    "mcan": "MCAN",
    "butd": "BUTD",
    "ban": "BAN",
    "gated": "gated stack",
}
RECORD = DOCS.parent / "benchmarks/experiments/comparison.json"
_NUM_COUNTED = 100  # questions over which the operations of a model are averaged


class Comparison(NamedTuple):
    """A data set of the comparison: its title, seeds, and the arguments of `coattn prepare` and `coattn extract`."""

    title: str
    num_seeds: int
    prepare: tuple[str, ...]
    extract: tuple[str, ...] = ()


COMPARISONS = {
    "easy_vqa": Comparison("easy-VQA", 3, ("easy-vqa",)),
    "sort_of_clevr": Comparison("Sort-of-CLEVR", 1, ("sort-of-clevr", "{data}"), ("--extractor", "objects")),
}
DAQUAR = {  # the configurations, the first compared with the second, and the number of seeds
    "daquar": (("daquar", "daquar_question_only"), 5),
    "daquar_generator": (("daquar_generator", "daquar"), 3),
}


def main() -> None:
    """Run one experiment, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*COMPARISONS, *DAQUAR, "report"), help="the experiment")
    parser.add_argument("--data", metavar="FOLDER", help="the authors' files of Sort-of-CLEVR, until they are prepared")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time (%(default)s)")
    arguments = parser.parse_args()
    name, out = arguments.name, Path("runs/experiments", arguments.name)
    if name in DAQUAR:
        configs, num_seeds = DAQUAR[name]
        coattn(
            "experiment", *(f"configs/{config}.yaml" for config in configs), *options(out, num_seeds, arguments.jobs)
        )
        write_json(RECORD.with_name(f"{name}.json"), read_json(out / "report.json"), indent=1)
    elif name in COMPARISONS:
        comparison, configs = COMPARISONS[name], find_configs(name)
        prepare(name, arguments.data)
        coattn("experiment", *configs, *options(out, comparison.num_seeds, arguments.jobs))
        recorded = read_json(RECORD) if RECORD.exists() else {}
        write_json(RECORD, recorded | {name: record(name, out)}, indent=1)
    if name not in DAQUAR:
        write_generated(DOCS / "comparison.md", "tools/experiments", format_table(read_json(RECORD)))


def options(out: Path, num_seeds: int, num_jobs: int) -> list[object]:
    """The options of `coattn experiment`."""
    return ["--out", out, "--seeds", num_seeds, "--jobs", num_jobs]


def coattn(*arguments: object) -> None:
    """Run a command of coattn; if it fails, end with its exit status."""
    words = list(map(str, arguments))
    print(f"$ coattn {shlex.join(words)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "coattn", *words]).returncode:
        sys.exit(status)


def find_configs(data: str) -> list[Path]:
    """The configurations of a comparison, in the order of MODELS."""
    paths = [Path("configs/compare", f"{data}_{model}.yaml") for model in MODELS]
    return [path for path in paths if path.exists()]


def prepare(data: str, folder: str | None) -> None:
    """Prepare a data set of the comparison and extract its features, unless that was done."""
    comparison, prepared = COMPARISONS[data], Path("data", data)
    if not (prepared / "report.json").exists():
        if folder is None and "{data}" in comparison.prepare:
            sys.exit(f"tools/experiments: {prepared} is missing; name the authors' files of {comparison.title}: --data")
        coattn("prepare", *(word.format(data=folder) for word in comparison.prepare), prepared)
    coattn("extract", prepared / "images.json", prepared / "features", *comparison.extract)


def record(data: str, out: Path) -> dict[str, Any]:
    """The results of a comparison by model, as they are kept in the repository."""
    report = read_json(out / "report.json")
    found = {}
    for config in find_configs(data):
        accuracy = {kind.partition(": ")[2] or kind: row[config.stem] for kind, row in report["accuracy"].items()
                    if not kind.startswith("answer type")}  # fmt: skip
        found[config.stem.removeprefix(f"{data}_")] = {
            "config": str(config),
            "seeds": report["num_seeds"],
            "test": accuracy,
            "CPU seconds of training": report["CPU seconds of fit"][config.stem],
            **size(out / config.stem / "seed_0"),
        }
    return found


def size(run: Path) -> dict[str, float]:
    """Parameters, and floating-point operations of a forward pass per question."""
    model = load_directory(run / "model").model
    split = open_data(run / "config.yaml", run / "model").split("test")
    chosen = np.linspace(0, len(split.records) - 1, _NUM_COUNTED).astype(int)
    operations = [count_operations(model, split.batch(chosen[[place]])) for place in range(len(chosen))]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "FLOPs per question": round(statistics.mean(operations)),
    }


def count_operations(model: VQAModel, batch: Batch) -> int:
    """Multiplications and additions of all matrix products in one forward pass of a batch."""
    # oneDNN runs an LSTM as one operation, whose matrix products are not counted.
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


def format_table(recorded: dict[str, Any]) -> str:
    """The table in aligned Markdown: a column per model, a row per data set and kind of question."""
    models = [model for model in MODELS if any(model in found for found in recorded.values())]
    rows = [["test accuracy, %", *(MODELS[model] for model in models)]]
    for data, found in recorded.items():
        for kind in next(iter(found.values()))["test"]:
            cells = [format_spread(found[model]["test"][kind]) if model in found else "-" for model in models]
            rows.append([f"{COMPARISONS[data].title}, {kind}", *cells])
    for name, key, scale in (
        ("thousand parameters", "parameters", 1e3),
        ("MFLOPs per question", "FLOPs per question", 1e6),
        ("CPU seconds of training", "CPU seconds of training", 1.0),
        ("seeds", "seeds", None),
    ):
        for data, found in recorded.items():
            cells = [format_number(found[model][key], scale) if model in found else "-" for model in models]
            rows.append([f"{COMPARISONS[data].title}, {name}", *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in aligned)


def format_number(value: float | Sequence[float], scale: float | None) -> str:
    """A number, or the mean of several, in units of `scale`; an integer without a scale; a dash if unknown."""
    if scale is None:
        return str(value)
    if isinstance(value, list):
        if not value:
            return "-"
        value = statistics.mean(value)
    scaled = value / scale
    return f"{scaled:.0f}" if scaled >= 100 else f"{scaled:.1f}"


if __name__ == "__main__":
    main()
