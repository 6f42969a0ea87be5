"""A picture of confidences: the reliability diagram and the risk-coverage curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coattn._internal.files import atomic_path, require
from coattn.metrics.confidence import NUM_BINS, RISKS, bins_of, calibration_error, risk_coverage

_INK, _BLUE, _GREY = "#1d2733", "#2b6cb0", "#a0aab5"


def plot_confidence(path: str | Path, confidence: np.ndarray, worth: np.ndarray) -> None:
    """Write a reliability diagram and a risk-coverage curve, as .png, .pdf or .svg by the ending of `path`.

    The left panel shows accuracy against confidence in bins of equal width; darker bars hold more questions, and the
    diagonal is perfect calibration. The right panel shows the risk of answering only the surest questions.

    Args:
        path: the file to write.
        confidence: (N,) in [0, 1].
        worth: (N,) in [0, 1], what each answer is worth; NaN where the question does not count.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the ending is not that of a picture.
        OSError: the file cannot be written.
    """
    figure, form = empty_figure(path)
    counted = ~np.isnan(worth)
    left, right = figure.subplots(1, 2)
    _reliability(left, confidence[counted], worth[counted])
    _risk_coverage(right, confidence[counted], worth[counted])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK)
    with atomic_path(path) as partial:
        figure.savefig(partial, format=form)


def empty_figure(path: str | Path) -> tuple[Any, str]:
    """A figure of matplotlib to draw on, and the file format of the ending of `path`.

    Raises:
        ModuleNotFoundError, ValueError: as `plot_confidence`.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    form = Path(path).suffix.lstrip(".").lower() or "none"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise ValueError(f"{path}: a picture cannot end in .{form}; take one of {', '.join(sorted(known))}")
    return figure, form


def _reliability(axes: Any, confidence: np.ndarray, worth: np.ndarray) -> None:
    bins = bins_of(confidence, NUM_BINS)
    counts = np.bincount(bins, minlength=NUM_BINS)
    filled = counts > 0
    accuracy = np.bincount(bins, worth, minlength=NUM_BINS)[filled] / counts[filled]
    mean_confidence = np.bincount(bins, confidence, minlength=NUM_BINS)[filled] / counts[filled]
    places = np.flatnonzero(filled) / NUM_BINS
    shades = [(*_rgb(_BLUE), 0.15 + 0.85 * share) for share in counts[filled] / counts.max()]
    axes.bar(places, accuracy, width=1 / NUM_BINS, align="edge", color=shades, edgecolor="white")
    axes.plot(mean_confidence, accuracy, "o", color=_INK, markersize=3.5, label="mean of the bin")
    axes.plot([0, 1], [0, 1], "--", color=_GREY, label="calibrated")
    error = 100 * calibration_error(confidence, worth)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {error:.2f} %", fontsize=11, color=_INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def _risk_coverage(axes: Any, confidence: np.ndarray, worth: np.ndarray) -> None:
    selective = risk_coverage(confidence, worth)(np.ones(len(worth), np.int64))
    axes.plot(100 * selective.coverage, 100 * selective.risk, color=_BLUE)
    for allowed, covered in zip(RISKS, selective.coverage_at(RISKS), strict=True):
        axes.axhline(100 * allowed, color=_GREY, linewidth=0.6, linestyle=":")
        axes.plot(100 * covered, 100 * allowed, "o", color=_INK, markersize=3.5, clip_on=False)
        above = 3 if allowed == RISKS[0] else -10  # in points; the lowest line has no room below
        text = f"{100 * covered:.1f} % at {100 * allowed:g} %"
        axes.annotate(
            text, (100 * covered, 100 * allowed), (4, above), textcoords="offset points", fontsize=8, color=_INK
        )
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="coverage: questions answered, %", ylabel="risk: error of those, %")
    axes.set_title(f"area under risk-coverage {100 * selective.area():.2f} %", fontsize=11, color=_INK)


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
