"""Measure speed: rates, ratios to a conventional implementation measured in turns, and shares of the machine's limits.

    tools/bench all                           measure every part; write benchmarks/cpu.json, or the file of the GPU
    tools/bench features train --device cpu   measure some parts; --json FILE updates these parts of a file
    tools/bench all --quick                   use tiny sizes, to check that everything runs
    tools/bench against DIR                   measure beside another commit, of which DIR is a git worktree
    tools/bench answer --against ../old       compare with another build, a checkout of this repository
    tools/bench report                        write the charts of benchmarks/*.json into docs/benchmarks.md

Requires torch, numpy, h5py and lightning. Without installation: PYTHONPATH=src python tools/bench.py all
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    against,
    answer,
    convert,
    epochs,
    extract,
    features,
    growth,
    machine,
    predict,
    prepare,
    report,
    targets,
    train,
)
from benchmarks.alone import run_bench
from benchmarks.context import Context
from coattn._internal.files import read_json, write_json
from coattn.training.progress import peak_memory
from pages import DOCS, write_generated

PARTS = {
    "features": features,
    "train": train,
    "predict": predict,
    "growth": growth,
    "extract": extract,
    "convert": convert,
    "prepare": prepare,
    "answer": answer,
    "epochs": epochs,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="+", metavar="PART", help=f"{', '.join(PARTS)}, all, against DIR, or report")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: the GPU if there is one)")
    add("--json", type=Path, metavar="FILE", help="file to update (default: benchmarks/NAME.json for `all`, else none)")
    add("--folder", type=Path, help="where to keep some GB of synthetic data (default: a temporary folder)")
    add("--against", type=Path, metavar="DIR", help="root of another build to compare with (default: this one)")
    add("--quick", action="store_true", help="use tiny sizes, to check that everything runs")
    add("--alone", nargs=2, metavar=("CASE", "IMPLEMENTATION"), help="measure one row once; print it as JSON")
    arguments = parser.parse_args()
    if arguments.parts[0] == "against":
        if len(arguments.parts) != 2 or not Path(arguments.parts[1], "tools", "bench.py").is_file():
            parser.error("against needs one folder, a git worktree of another commit with a tools/bench.py")
    elif unknown := set(arguments.parts) - {*PARTS, "all", "report"}:
        parser.error(f"there is no part {unknown.pop()!r}; the parts are {', '.join(PARTS)}; all; against DIR; report")
    if arguments.parts == ["report"]:
        write_generated(DOCS / "benchmarks.md", "tools/bench report", report.charts())
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Measure the given parts, print their tables, and write the JSON file."""
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    everything = "all" in arguments.parts
    parts, path = list(PARTS) if everything else arguments.parts, arguments.json
    if path is None and everything and not arguments.quick:
        path = report.default_path(machine.describe(device))
    with tempfile.TemporaryDirectory(prefix="coattn_bench_") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(device, quick=arguments.quick, folder=folder, against=arguments.against)
        if parts[0] == "against":
            measure_against(context, Path(parts[1]), path)
        elif arguments.alone:
            row = PARTS[parts[0]].run_once(context, *arguments.alone)
            peak = peak_memory(torch.device(device))
            print(json.dumps(row if peak is None else row | {"peak GB": round(peak, 2)}))
        elif len(parts) == 1:
            measure_part(context, parts[0], path)
        else:
            if everything and path is not None:
                write_json(path, {})  # a complete run replaces the file
            for part in parts:
                print(f"\n{part}", flush=True)
                run_bench(context, part, *([] if path is None else ["--json", str(path)]))


def measure_part(context: Context, part: str, path: Path | None) -> None:
    """Measure one part in this process. Each part has its own, because earlier parts would leave it less memory."""
    described, limits = machine.describe(context.device), context.measured_limits()
    print("\n".join(f"{name}: {value}" for name, value in (described | limits).items()), flush=True)
    found = {"machine": described, "limits": {part: limits}, part: PARTS[part].run(context)}
    print(f"\n{report.table(part, found[part])}")
    if not context.quick and (checked := targets.check(found)):
        print(f"\n{report.table('targets', checked)}")
    if path is not None:
        write(path, found, with_targets=not context.quick)
        print(f"\n{path}: the same numbers as JSON")
        draw_growth(found, path.with_name(f"{path.stem}_growth.png"))


def measure_against(context: Context, other: Path, path: Path | None) -> None:
    """Measure beside another commit, and print the table; its rows become the part "against" of the JSON file."""
    rows = against.run(context, other)
    print(report.table(f"beside {against.commit_of(other)}", rows))
    if path is not None:
        before = read_json(path) if path.exists() else {}
        write_json(path, before | {"against": rows}, indent=1)


def write(path: Path, found: dict[str, Any], *, with_targets: bool) -> None:
    """Update the measured parts of the JSON file; its other parts are kept."""
    before = read_json(path) if path.exists() else {}
    found = before | found | {"limits": before.get("limits", {}) | found["limits"]}
    if with_targets:
        found["targets"] = targets.check(found)
    write_json(path, found, indent=1)


def draw_growth(found: dict[str, Any], picture: Path) -> None:
    """Draw how cost grows, if that part was measured."""
    if not found.get("growth"):
        return
    try:
        report.plot_growth(found["growth"], picture)
        print(f"{picture}: how cost grows")
    except ModuleNotFoundError as error:
        print(f"no picture of how cost grows: {error.name} is not installed")


if __name__ == "__main__":
    main()
