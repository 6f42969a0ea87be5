"""Run notebooks in place and store their output: `tools/notebooks [--check] [FILE...]`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from coattn._internal.files import atomic_path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
LONGEST_CELL = 600  # seconds
COLORS = re.compile(r"\x1b\[[\d;]*m")


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook from top to bottom in a fresh kernel, in its own folder; return it with its outputs.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=LONGEST_CELL,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],  # errors; the kernel warns about its own ports otherwise
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what differs between runs and machines: metadata and the output on stderr."""
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = {}
                if "image/png" in output.get("data", {}):  # the text beside a picture holds a memory address
                    output.data = {"image/png": output.data["image/png"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/notebooks", description="Run the notebooks and store their output.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="FILE", help="default: all in notebooks/")
    parser.add_argument("--check", action="store_true", help="run them without changing the files")
    arguments = parser.parse_args()

    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the kernel's debugger warns about frozen modules otherwise
    failed = []
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            failed.append(path.name)
            reason = COLORS.sub("", str(error))
            print(f"{path.name}: failed after {time.perf_counter() - started:.0f} s\n{reason}", file=sys.stderr)
            continue
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
        tidy(notebook)
        if not arguments.check:
            with atomic_path(path) as partial:
                partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    if failed:
        print(f"tools/notebooks: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
