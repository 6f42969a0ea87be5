"""tools/bench: what becomes of measured numbers, on a result written down here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import growth, report, targets
from benchmarks.targets import Target
from benchmarks.timing import summary


def row(case: str, implementation: str, **columns: Any) -> dict[str, Any]:
    spread = {name.replace("_per_s", "/s"): summary([value]) for name, value in columns.items()}
    return {"case": case, "implementation": implementation} | spread


FOUND: dict[str, Any] = {
    "machine": {"processor": "An abacus", "cores": 2, "flags": ["avx2"], "torch": "2.9"},
    "train": [
        row("36 regions", "conventional", questions_per_s=100),
        row("36 regions", "coattn, float32", questions_per_s=200, ratio=2),
        row("36 regions", "coattn, bf16", questions_per_s=1234, ratio=12.34),
    ],
    "predict": [row("one question", "conventional", ms=9), row("one question", "coattn", ms=3)],
}


def test_the_best_row_is_held_against_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (
        Target("train", "36 regions", "coattn", "ratio", ">=", 5),
        Target("train", "36 regions", "coattn, float32", "ratio", ">=", 2.5),
        Target("predict", "one question", "co", "ms", "<=", 3),
        Target("train", "100 regions", "coattn", "ratio", ">=", 1),  # not measured, like the next two
        Target("train", "36 regions", "coattn", "peak GB", "<=", 1),
        Target("features", "36 regions", "coattn", "ratio", ">=", 1),
    )
    monkeypatch.setattr(targets, "CPU", chosen)
    monkeypatch.setattr(targets, "CUDA", chosen[:1])
    checked = targets.check(FOUND)
    assert [(found["measured"], found["reached"]) for found in checked] == [(12.34, "yes"), (2, "no"), (3, "yes")]
    assert checked[1] == {
        "case": "train: 36 regions",
        "implementation": "coattn, float32",
        "what": "ratio",
        "wanted": ">= 2.5",
        "measured": 2,
        "reached": "no",
    }
    assert len(targets.check(FOUND | {"machine": {"gpu": {"name": "NVIDIA H200"}}})) == 1


def test_bars_of_a_case_are_as_long_as_its_numbers() -> None:
    lines = report.chart(FOUND).splitlines()
    assert lines[0] == "    An abacus, 2 cores (avx2), torch 2.9; medians; x: times the conventional"
    assert lines[1:3] == ["", "    training MCAN-small, questions/s: 36 regions"]
    assert lines[3].split() == ["conventional", "100", "█" * 3]
    assert lines[5].split() == ["coattn,", "bf16", "1,234", "█" * 36, "12.3", "x"]
    assert lines[7] == "    answering, questions/s or milliseconds: one question"
    assert lines[9].split() == ["coattn", "3", "ms", "█" * 12]
    assert len({line.index("█") for line in lines[3:6]}) == 1
    on_gpu = FOUND["machine"] | {"gpu": {"name": "NVIDIA H200"}}
    assert report.chart(FOUND | {"machine": on_gpu}).startswith("    NVIDIA H200 (avx2), torch 2.9")


def grown(case: str, size: int, time: float, arithmetic: float) -> dict[str, Any]:
    return {"case": case, "size": size, "ms/question": summary([time]), "MFLOP/question": arithmetic}


def test_exponents_are_those_of_powers() -> None:
    sizes = (25, 50, 100)
    rows = [grown("regions", size, 3.0 * math.sqrt(size / 25), size**2 / 62.5) for size in sizes]
    other = [grown("tokens", size, size**1.5, size) for size in (4, 8)]
    found = growth.with_exponents([*rows, *other])
    expected = [None, {"exponent": 0.5, "of the arithmetic": 2.0}, {"exponent": 0.5, "of the arithmetic": 2.0}]
    assert [exponents_of(row) or None for row in found[:3]] == expected
    assert [exponents_of(row) for row in found[3:]] == [{}, {"exponent": 1.5, "of the arithmetic": 1.0}]
    most = growth.beyond(found)
    assert (most["implementation"], most["exponent too high by"]) == ("coattn, tokens", 0.5)


def test_more_workers_have_exponents_without_arithmetic_and_none_after_no_worker() -> None:
    rows = growth.with_exponents([growth.rate_row("workers", count, [100 * max(count, 1)]) for count in (0, 1, 2)])
    assert [exponents_of(row) for row in rows] == [{}, {}, {"exponent": -1.0}]
    assert rows[2]["ms/question"]["median"] == 5


def exponents_of(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name in ("exponent", "of the arithmetic")}


def test_growth_is_drawn_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    rows = [grown(case, size, size / 10, size) for case in ("questions", "regions") for size in (16, 32, 64)]
    rows += [growth.rate_row("workers", count, [1000 + count]) for count in (0, 1, 2)]
    most = {"case": "beyond the arithmetic", "implementation": "coattn, regions", "exponent too high by": 0.0}
    report.plot_growth([most, *rows], tmp_path / "growth.png")
    picture = imread(tmp_path / "growth.png")
    assert picture.shape[:2] == (320, 960)
    assert all((part[..., :3].min(axis=2) < 0.5).any() for part in np.split(picture, 3, axis=1))
