"""Timing on a shared machine: compared functions take turns, and medians are reported with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)


def alternate(runs: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, list[float]]:
    """Call each of `runs` in turn, `rounds` times, and return the results. Every second round is reversed."""
    found: dict[K, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            found[name].append(runs[name]())
    return found


def seconds(function: Callable[[], Any]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest, to four digits."""
    return {"median": _short(statistics.median(values)), "low": _short(min(values)), "high": _short(max(values))}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The summary of the ratios of ours to theirs, round by round."""
    return summary([a / b for a, b in zip(ours, theirs, strict=True)])


def median_of(value: Any) -> float:
    """The median of a `summary`, or a plain number itself."""
    return value["median"] if isinstance(value, dict) else value


def _short(value: float) -> float:
    return float(f"{value:.4g}")
