"""The targets of the benchmark, and whether they are reached."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import answer, convert, extract, prepare
from benchmarks.context import Row
from benchmarks.data import ADAPTIVE, FIXED_36, FIXED_100
from benchmarks.timing import median_of
from benchmarks.ways import ACCUMULATED, LESS_MEMORY

_EASY, _ONE = "one question, easy-VQA's model", "one question, 36 regions"


class Target(NamedTuple):
    """A bound on a column of a row; rows are found by their case and the beginning of their implementation.

    Attributes:
        part: of the benchmark.
        case: of the row.
        implementation: of the row; of several rows the best counts.
        column: of the row.
        wanted: ">=" or "<=", and ...
        bound: ... how much.
    """

    part: str
    case: str
    implementation: str
    column: str
    wanted: str
    bound: float


# The bound is the spread of repeated measurements on a shared machine.
_GROWTH = Target("growth", "beyond the arithmetic", "coattn", "exponent too high by", "<=", 0.1)
CPU = (
    *(
        Target("features", shape.name, "coattn", column, ">=", bound)
        for shape in (ADAPTIVE, FIXED_36, FIXED_100)
        for column, bound in (("share of limit", 0.7), ("ratio", 5))
    ),
    Target("train", ADAPTIVE.name, "coattn, bf16", "ratio", ">=", 5),
    Target("train", FIXED_100.name, "coattn, bf16", "ratio", ">=", 2.5),
    Target("train", ADAPTIVE.name, "coattn, float32", "ratio", ">=", 2),
    Target("train", FIXED_100.name, "coattn, float32", "ratio", ">=", 1.1),
    Target("train", FIXED_100.name, "coattn", "loader / one batch", ">=", 0.95),
    Target("train", FIXED_100.name, LESS_MEMORY, "peak GB", "<=", 6.9 / 2),
    Target("train", FIXED_100.name, ACCUMULATED, "peak GB", "<=", 2.5),
    Target("predict", _ONE, "coattn", "ms", "<=", 50),
    Target("predict", _EASY, "coattn", "ms", "<=", 5),
    _GROWTH,
    # At most 0.75 of the time of doing one thing after another.
    Target("extract", extract.CASE, "coattn", "ratio", ">=", 1.33),
    Target("extract", extract.CASE, "coattn", "times in batches", ">=", 1.33),
    Target("convert", convert.CASE, "coattn", "share of limit", ">=", 0.33),
    Target("prepare", prepare.PREPARE, "coattn", "s", "<=", 180),
    Target("prepare", prepare.PREPARE, "coattn", "peak GB", "<=", 4),
    Target("prepare", prepare.SCORE, "coattn", "s", "<=", 30),
    *(Target("answer", case, answer.EXPORTED, answer.FIRST, "<=", 0.55) for case in answer.ONE),
    Target("answer", answer.ONE[0], answer.INT8, answer.FIRST, "<=", 0.28),
    Target("answer", answer.BUSY, f"{answer.EXPORTED}, threads: 2", answer.FIRST, "<=", 1.2),
    Target("answer", answer.EASY, answer.EXPORTED, answer.FIRST, "<=", 0.17),
    Target("answer", answer.START, "coattn.runtime ask", answer.FIRST, "<=", 0.15),
    Target("answer", answer.MEMORY, "coattn.runtime ask", answer.FIRST, "<=", 0.15),
    Target("answer", answer.INSTALLED, "coattn[runtime]", answer.FIRST, "<=", 0.05),
    Target("answer", answer.START, "coattn ask --map", answer.FIRST, "<=", 1.15),
    Target("answer", answer.START, "coattn fit --help", answer.FIRST, "<=", 1.8),
    Target("answer", answer.START, "coattn inspect", answer.FIRST, "<=", 0.3),
    *(
        Target("answer", case, "coattn serve", column, wanted, bound)
        for case in (answer.SERVER, answer.SERVER_EXPORTED)
        for column, wanted, bound in ((answer.FIRST, ">=", 2), ("p99 / p50", "<=", 2), ("lost", "<=", 0))
    ),
    Target("answer", answer.CHANGED_EASY, answer.INT8, "%", "<=", 0.02),
    Target("answer", answer.CHANGED_CLEVR, answer.INT8, "%", "<=", 0.5),
    Target("answer", answer.PHOTO, answer.VILT, answer.FIRST, ">=", 5),
    Target("answer", answer.PHOTO, answer.BLIP, answer.FIRST, ">=", 20),
)
CUDA = (
    *(
        Target("features", shape.name, "coattn", column, ">=", bound)
        for shape in (ADAPTIVE, FIXED_36, FIXED_100)
        for column, bound in (("share of limit", 0.7), ("ratio", 5))
    ),
    Target("train", FIXED_100.name, "coattn", "questions/s", ">=", 15_000),
    Target("train", FIXED_100.name, "coattn", "ratio", ">=", 10),
    Target("train", FIXED_100.name, "coattn", "loader / one batch", ">=", 0.95),
    _GROWTH,
    Target("epochs", f"VQA v2's numbers, {FIXED_100.name}", "coattn", "13 epochs, min", "<=", 10),
)
_WANTED = {">=": operator.ge, "<=": operator.le}


def check(found: Mapping[str, Any]) -> list[Row]:
    """A row for each target of this device whose part was measured."""
    targets = CUDA if "gpu" in found["machine"] else CPU
    rows = (_checked(target, found.get(target.part, ())) for target in targets)
    return [row for row in rows if row is not None]


def _checked(target: Target, rows: Sequence[Row]) -> Row | None:
    values = [
        (median_of(row[target.column]), row["implementation"])
        for row in rows
        if row["case"] == target.case
        and row["implementation"].startswith(target.implementation)
        and target.column in row
    ]
    if not values:
        return None
    value, implementation = (max if target.wanted == ">=" else min)(values)
    return {
        "case": f"{target.part}: {target.case}",
        "implementation": implementation,
        "what": target.column,
        "wanted": f"{target.wanted} {target.bound:g}",
        "measured": value,
        "reached": "yes" if _WANTED[target.wanted](value, target.bound) else "no",
    }
