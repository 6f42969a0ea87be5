"""Tables and charts of measured numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.context import Row
from benchmarks.timing import median_of
from coattn._internal.files import read_json

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
_MEASURED = ("questions/s", "requests/s", "ms", "images/s", "MB/s", "MB", "%")
_FIRST = ("case", "implementation", "size", *_MEASURED, "ratio")
_TITLES = {
    "features": "reading features, questions/s",
    "train": "training MCAN-small, questions/s",
    "predict": "answering, questions/s or milliseconds",
    "extract": "extracting features, images/s",
    "convert": "converting features, MB/s",
    "prepare": "preparing and scoring, questions/s",
    "answer": "asking",
}
_WIDTH = 36


def default_path(machine: Mapping[str, Any]) -> Path:
    """The JSON file of a machine: benchmarks/cpu.json, or one named after the GPU, benchmarks/h200.json for an H200."""
    name = machine["gpu"]["name"].lower().removeprefix("nvidia ") if "gpu" in machine else "cpu"
    return FOLDER / f"{re.sub('[^a-z0-9]+', '_', name)}.json"


def table(title: str, rows: Sequence[Row]) -> str:
    """Rows as an aligned text table with the union of their columns; a spread follows its median in parentheses."""
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [*(name for name in _FIRST if name in found), *(name for name in found if name not in _FIRST)]
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = (
        "  ".join(
            cell.ljust(width) if name in _FIRST[:2] else cell.rjust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['median']:g} ({value['low']:g} to {value['high']:g})"
    return str(value)


def chart(found: Mapping[str, Any]) -> str:
    """The bars of every case of one machine as indented text, and its targets."""
    machine = found["machine"]
    name = machine["gpu"]["name"] if "gpu" in machine else f"{machine['processor']}, {machine['cores']} cores"
    lines = [f"{name} ({', '.join(machine['flags'])}), torch {machine['torch']}; medians; x: times the conventional"]
    for part, title in _TITLES.items():
        rows = found.get(part, [])
        for case in dict.fromkeys(row["case"] for row in rows):
            lines += ["", f"{title}: {case}", *_bars([row for row in rows if row["case"] == case])]
    if found.get("against"):
        lines += ["", *table("beside an earlier commit, in turns", found["against"]).splitlines()]
    if found.get("targets"):
        lines += ["", *table("targets", found["targets"]).splitlines()]
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


def charts() -> str:
    """The charts of all measured machines."""
    return "\n".join(chart(read_json(path)) for path in sorted(FOLDER.glob("*.json")))


def _bars(rows: Sequence[Row]) -> Iterator[str]:
    """One line per row of a case: name, number, a bar proportional to the number, and the ratio."""
    column = next(name for name in _MEASURED if name in rows[0])
    most = max(median_of(row[column]) for row in rows)
    names = max(len(row["implementation"]) for row in rows)
    for row in rows:
        value = median_of(row[column])
        bar = "█" * max(1, round(_WIDTH * value / (most or 1)))
        unit = f" {column}" if column in ("ms", "MB", "%") else ""
        times = f"  {row['ratio']['median']:.3g} x" if "ratio" in row else ""
        if "of the first" in row and row is not rows[0]:
            times = f"  {row['of the first']['median']:.3g} of the first"
        yield f"  {row['implementation']:<{names}} {_number(value):>8}{unit}  {bar}{times}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw the time per question against each size, beside the operations per question.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row["case"] for row in rows if "ms/question" in row))
    figure = Figure(figsize=(3.2 * len(kinds), 3.2), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        mine = [row for row in rows if row["case"] == kind]
        sizes, times = [row["size"] for row in mine], [row["ms/question"]["median"] for row in mine]
        axes.set_yscale("log")
        if sizes[0]:
            axes.set_xscale("log")
        axes.plot(sizes, times, "o-", label="time")
        if operations := [row["MFLOP/question"] for row in mine if "MFLOP/question" in row]:
            axes.plot(sizes, [value * times[-1] / operations[-1] for value in operations], "--", label="arithmetic")
        axes.set(xlabel=kind, ylabel="ms per question", xticks=sizes, xticklabels=map(str, sizes))
        axes.minorticks_off()
        axes.set_ylim(min(times) / 1.5, max(times) * 1.5)
        ends = sorted({min(times), max(times)})
        axes.set_yticks(ends, [f"{time:.3g}" for time in ends])
        axes.legend()
    figure.savefig(path, dpi=100)
