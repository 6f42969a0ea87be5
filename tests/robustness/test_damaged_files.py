"""Damaged files of every kind that the product reads: the right result, or a message that names the file.

The ways of damage are in mutations.py, the kinds of files in file_formats.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from damage_runner import Examples, cases, run_in_children
from file_formats import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore::coattn.explain.abstain.DoubtWarning")

# Formats that take a second or more to make or to read, or that need packages which not every installation has.
SLOW = {
    *("export", "model with a network", "model with a text encoder", "text encoder", "vision model"),
    *("extractor weights", "question embeddings", "DAQUAR", "Sort-of-CLEVR", "LMDB", "Parquet", "Arrow"),
    *("checkpoint", "checkpoint to resume from", "checkpoint to predict with", "training", "inspected data set"),
}


def test_three_hundred_damages(tmp_path: Path) -> None:
    examples = Examples(tmp_path / "examples")
    todo = [case for case in cases(450) if case.format not in SLOW]
    assert len(todo) >= 300
    outcomes = [examples.try_case(case, tmp_path / case.format.replace("/", "-")) for case in todo]
    assert [outcome for outcome in outcomes if outcome.fault] == []
    assert sum(outcome.result == "read" for outcome in outcomes) < len(outcomes) / 2


@pytest.mark.slow
def test_five_thousand_damages(tmp_path: Path) -> None:
    """In separate processes, so that a signal, a hang or a waste of memory is a fault as well."""
    outcomes = list(run_in_children(Examples(tmp_path), cases(5100)))
    assert [outcome for outcome in outcomes if outcome.fault] == []
    assert {outcome.case.format for outcome in outcomes} == set(FORMATS)
    assert len(outcomes) >= 5000
