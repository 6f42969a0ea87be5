"""Timing that holds on a shared machine: what is compared takes turns, and medians are reported with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)


def alternate(runs: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, list[float]]:
    """Call each of `runs` in turn, `rounds` times; what each returned. Every second round goes the other way round."""
    found: dict[K, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            found[name].append(runs[name]())
    return found


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest, to four digits."""
    return {"median": _short(statistics.median(values)), "low": _short(min(values)), "high": _short(max(values))}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours in units of theirs, round by round, as `summary`."""
    return summary([a / b for a, b in zip(ours, theirs, strict=True)])


def median_of(value: Any) -> float:
    """Of a `summary`; a plain number is itself."""
    return value["median"] if isinstance(value, dict) else value


def _short(value: float) -> float:
    return float(f"{value:.4g}")
