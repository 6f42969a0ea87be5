"""`tools/bench against DIR`: this code beside that of another commit, each in its own processes, in turns.

DIR is a git worktree of the other commit (`git worktree add DIR COMMIT`). Each side runs its own `tools/bench PART
--alone CASE IMPLEMENTATION` on the same synthetic data; `MEASURED` has the names of both sides. Evaluation is
left out, because commits differ in how many questions of its data are about one image.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.alone import run_alone
from benchmarks.context import Context, Row
from benchmarks.data import ADAPTIVE, FIXED_100
from benchmarks.report import ROOT
from benchmarks.timing import alternate, ratio, summary
from benchmarks.ways import ACCUMULATED, LESS_MEMORY

# Part, case, implementation, and the implementation of the other side.
MEASURED = (
    ("train", ADAPTIVE.name, "coattn, bf16", "coattn, bf16"),
    ("train", ADAPTIVE.name, "coattn, float32", "coattn, float32"),
    ("train", FIXED_100.name, LESS_MEMORY, LESS_MEMORY),
    ("train", FIXED_100.name, ACCUMULATED, LESS_MEMORY),
)


def run(context: Context, other: Path) -> list[Row]:
    """A row for each of `MEASURED`: questions per second of both sides, their ratio, and the most memory of each."""
    return [compare(context, other, *measured) for measured in MEASURED]


def compare(context: Context, other: Path, part: str, case: str, implementation: str, theirs: str) -> Row:
    """One row; the first measurement of each side is left out, for it may write the data."""
    peaks: dict[Path, Any] = {}

    def rate(root: Path, implementation: str) -> float:
        found = run_alone(context, part, case, implementation, root=root)
        peaks[root] = found.get("peak GB")
        return found["questions/s"]

    sides = {ROOT: partial(rate, ROOT, implementation), other.resolve(): partial(rate, other.resolve(), theirs)}
    for side in sides.values():
        side()
    ours, others = alternate(sides, context.scale.rounds).values()
    return {
        "case": f"{part}: {case}",
        "implementation": implementation,
        "questions/s": summary(ours),
        f"{commit_of(other)}, questions/s": summary(others),
        "ratio": ratio(ours, others),
        "peak GB": peaks[ROOT],
        f"{commit_of(other)}, peak GB": peaks[other.resolve()],
    }


def commit_of(root: Path) -> str:
    """The short hash of a worktree's commit."""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
