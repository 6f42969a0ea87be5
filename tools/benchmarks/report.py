"""What was measured: as tables for people, as JSON for the README and for comparisons later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.context import Row

_FIRST = ("case", "implementation", "size", "questions/s", "ms", "ratio")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def default_path(machine: dict[str, Any]) -> Path:
    """benchmarks/cpu.json, or by the GPU's name: benchmarks/h200.json for an "NVIDIA H200"."""
    name = machine["gpu"]["name"].lower().removeprefix("nvidia ") if "gpu" in machine else "cpu"
    return FOLDER / f"{re.sub('[^a-z0-9]+', '_', name)}.json"


def table(title: str, rows: Sequence[Row]) -> str:
    """Rows with their union of columns, aligned; a spread stands behind its median."""
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [*(name for name in _FIRST if name in found), *(name for name in found if name not in _FIRST)]
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if name in _FIRST[:2] else cell.rjust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return f"{title}\n" + "\n".join(f"  {line}" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['median']:g} ({value['low']:g} to {value['high']:g})"
    return str(value)
