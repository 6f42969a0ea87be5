"""Speed, measured in turns with what people compare with, mostly a conventional implementation: rates, ratios, limits.

    tools/bench all                           every part; writes benchmarks/cpu.json, or that of the GPU if there is one
    tools/bench features train --device cpu   some parts; --json FILE writes them, and leaves other parts of a file
    tools/bench all --quick                   tiny sizes: says whether everything runs, and nothing about speed
    tools/bench --write-readme                puts a chart of benchmarks/*.json into README.md

It needs torch, numpy, h5py and lightning, and no installation: PYTHONPATH=src python tools/bench.py all
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import convert, epochs, extract, features, growth, machine, predict, prepare, report, targets, train
from benchmarks.alone import run_bench
from benchmarks.context import Context
from coattn._internal.files import read_json, write_json
from coattn.training.callbacks import peak_memory
from readme import write_between

PARTS = {
    "features": features,
    "train": train,
    "predict": predict,
    "growth": growth,
    "extract": extract,
    "convert": convert,
    "prepare": prepare,
    "epochs": epochs,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; or all")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: the GPU, if there is one")
    add("--json", type=Path, metavar="FILE", help="where to write; by default only `all` writes: benchmarks/NAME.json")
    add(
        "--folder",
        type=Path,
        help="for the synthetic data, some GB, most of which is kept; by default it is temporary",
    )
    add("--quick", action="store_true", help="tiny sizes, to see whether everything runs")
    add("--alone", nargs=2, metavar=("CASE", "IMPLEMENTATION"), help="one row, once; prints it and its memory as JSON")
    add("--write-readme", action="store_true", help="put a chart of benchmarks/*.json between its marks in README.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*PARTS, "all"}:
        parser.error(f"there is no part {unknown.pop()!r}; there are {', '.join(PARTS)}; or say all")
    if not (arguments.parts or arguments.write_readme):
        parser.error(f"say what to measure: {', '.join(PARTS)}, or all")
    if arguments.parts:
        measure(arguments)
    if arguments.write_readme:
        charts = [report.chart(read_json(path)) for path in sorted(report.FOLDER.glob("*.json"))]
        write_between(report.ROOT / "README.md", "tools/bench", "\n".join(charts))


def measure(arguments: argparse.Namespace) -> None:
    """Measure some parts, print their tables, and write them where they are to be written."""
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
        context = Context(device, quick=arguments.quick, folder=folder)
        if arguments.alone:
            row = PARTS[parts[0]].run_once(context, *arguments.alone)
            peak = peak_memory(torch.device(device))
            print(json.dumps(row if peak is None else row | {"peak GB": round(peak, 2)}))
        elif len(parts) == 1:
            measure_part(context, parts[0], path)
        else:
            if everything and path is not None:
                write_json(path, {})  # nothing of an earlier run stays
            for part in parts:
                print(f"\n{part}", flush=True)
                run_bench(context, part, *([] if path is None else ["--json", str(path)]))


def measure_part(context: Context, part: str, path: Path | None) -> None:
    """Measure one part, in this process; others before it would leave it less memory, and the machine another."""
    described, limits = machine.describe(context.device), context.measured_limits()
    print("\n".join(f"{name}: {value}" for name, value in (described | limits).items()), flush=True)
    found = {"machine": described, "limits": {part: limits}, part: PARTS[part].run(context)}
    print(f"\n{report.table(part, found[part])}")
    if not context.quick and (checked := targets.check(found)):
        print(f"\n{report.table('targets', checked)}")
    if path is not None:
        write(path, found, with_targets=not context.quick)
        print(f"\n{path}: the same as JSON")
        draw_growth(found, path.with_name(f"{path.stem}_growth.png"))


def write(path: Path, found: dict[str, Any], *, with_targets: bool) -> None:
    """What was found, in place of the same in a file that may be there; its other parts stay."""
    before = read_json(path) if path.exists() else {}
    found = before | found | {"limits": before.get("limits", {}) | found["limits"]}
    if with_targets:
        found["targets"] = targets.check(found)
    write_json(path, found, indent=1)


def draw_growth(found: dict[str, Any], picture: Path) -> None:
    """How cost grows as a picture, if that was measured."""
    if not found.get("growth"):
        return
    try:
        report.plot_growth(found["growth"], picture)
        print(f"{picture}: how cost grows")
    except ModuleNotFoundError as error:
        print(f"no picture of how cost grows: it needs {error.name}")


if __name__ == "__main__":
    main()
