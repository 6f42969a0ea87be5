"""Speed, measured beside a conventional implementation in the same process: questions per second, ratio, limits.

    tools/bench all                      every part, on the GPU if there is one; writes benchmarks/NAME.json
    tools/bench train --device cpu       one part; --json FILE writes, or replaces that part of, a file
    tools/bench all --quick              tiny sizes: says whether everything runs, and nothing about speed

It needs torch, numpy, h5py and lightning, and no installation: PYTHONPATH=src python tools/bench.py all
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import features, growth, machine, predict, report, train
from benchmarks.context import Context
from coattn.files import read_json, write_json

PARTS = {"features": features, "train": train, "predict": predict, "growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("part", choices=[*PARTS, "all"])
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: the GPU, if there is one")
    add("--json", type=Path, metavar="FILE", help="where to write; by default, only `all` writes: benchmarks/NAME.json")
    add("--folder", type=Path, help="for the synthetic data, about 5 GB; kept, while by default it is temporary")
    add("--quick", action="store_true", help="tiny sizes, to see whether everything runs")
    add("--alone", nargs=2, metavar=("CASE", "IMPLEMENTATION"), help="one row, once; prints it and its memory as JSON")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="coattn_bench_") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(device, quick=arguments.quick, folder=folder)
        if arguments.alone:
            row = PARTS[arguments.part].run_once(context, *arguments.alone)
            print(json.dumps(row | {"peak GB": machine.peak_memory(device)}))
            return
        parts = list(PARTS) if arguments.part == "all" else [arguments.part]
        found: dict[str, Any] = {"machine": machine.describe(device) | context.measured_limits()}
        for part in parts:
            found[part] = PARTS[part].run(context)
            print(report.table(part, found[part]), flush=True)
    path = arguments.json
    if path is None and arguments.part == "all" and not arguments.quick:
        path = report.default_path(found["machine"])
    if path is not None:
        write_json(path, (read_json(path) if path.exists() else {}) | found, indent=1)
        print(f"{path}: the same as JSON")


if __name__ == "__main__":
    main()
