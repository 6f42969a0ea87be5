"""A small picture of the report of a prepared data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coattn._internal.files import atomic_path, require

_COLORS = ("#2f6fb3", "#e08b3e", "#5a9e6f", "#a65d97", "#8a8a8a")
_MOST_TYPES = 12


def draw_report(report: Mapping[str, Any], name: str, path: str | Path) -> None:
    """Write a PNG of three panels: kinds of questions, coverage by vocabulary size, scores without the image.

    Args:
        report: the result of `build_report`.
        name: the name of the data set, for the title.
        path: the file to write.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    splits: Mapping[str, Mapping[str, Any]] = report["splits"]
    figure = require("matplotlib.figure", "plot").Figure(figsize=(12, 4), dpi=110, layout="constrained")
    figure.suptitle(f"{name}: " + ", ".join(f"{split} {entry['questions']:,}" for split, entry in splits.items()))
    kinds, coverage, prior = figure.subplots(1, 3)
    key = "answer_types" if any(set(entry["answer_types"]) - {""} for entry in splits.values()) else "question_types"
    counts = {split: entry[key] for split, entry in splits.items()}
    _bars(kinds, counts, f"{key.replace('_', ' ')}, % of questions", share=True)
    for number, (split, entry) in enumerate(splits.items()):
        points = {int(size): score for size, score in entry.get("coverage", {}).items()}
        coverage.plot([*points], [*points.values()], marker="o", color=_COLORS[number % len(_COLORS)], label=split)
    coverage.set(xscale="log", xlabel="answers", ylim=(0, 102))
    coverage.set_title("best score by size of vocabulary, %", fontsize=10)
    if coverage.lines:  # no answers, no lines
        coverage.legend(fontsize=8)
    scores = {split: entry["prior"] for split, entry in splits.items() if "prior" in entry}
    _bars(prior, scores, "score without seeing the image, %", share=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


def _bars(axes: Any, values: Mapping[str, Mapping[str, float]], title: str, *, share: bool) -> None:
    """Horizontal bars, one group per kind and one bar per split."""
    kinds = list(dict.fromkeys(kind for counts in values.values() for kind in counts))[:_MOST_TYPES]
    height = 0.8 / max(1, len(values))
    for number, (split, counts) in enumerate(values.items()):
        scale = 100 / (sum(counts.values()) or 1) if share else 1
        widths = [scale * counts.get(kind, 0) for kind in kinds]
        places = [place + number * height for place in range(len(kinds))]
        axes.barh(places, widths, height * 0.9, color=_COLORS[number % len(_COLORS)], label=split)
    middle = (len(values) - 1) * height / 2
    labels = [(kind or "(none)")[:28] for kind in kinds]
    axes.set_yticks([place + middle for place in range(len(kinds))], labels, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
