"""Processes that know of each other by files: reports, a lost process, what an earlier command left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coattn.features.extract.processes import gather, signs_of_life


def test_reports_come_by_rank_and_leave_nothing(tmp_path: Path) -> None:
    for rank in (2, 1):
        with signs_of_life(tmp_path, rank) as report:
            report([rank, "é"])
    assert gather(tmp_path, 3, lambda rank: True) == [[1, "é"], [2, "é"]]
    assert not list(tmp_path.iterdir())


def test_a_lost_process_is_named(tmp_path: Path) -> None:
    with signs_of_life(tmp_path, 1) as report:
        report(1)
    with signs_of_life(tmp_path, 2):
        pass  # it dies without a report
    with pytest.raises(ValueError, match=r"process 2 of 3 gave no sign of life .* run the same command again"):
        gather(tmp_path, 3, lambda rank: True, seconds=0.2)


def test_a_pause_of_the_machine_is_held_against_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with signs_of_life(tmp_path, 1) as report:
        pauses = iter((lambda: monkeypatch.setattr(time, "monotonic", lambda: float("inf")), lambda: report("done")))
        monkeypatch.setattr(time, "sleep", lambda seconds: next(pauses)())
        assert gather(tmp_path, 2, lambda rank: True) == ["done"]


def test_the_report_of_an_earlier_command_does_not_count(tmp_path: Path) -> None:
    with signs_of_life(tmp_path, 1) as report:
        report(1)
    with pytest.raises(ValueError, match="process 1 of 2 gave no sign of life"):
        gather(tmp_path, 2, lambda rank: False, seconds=0.2)


def test_a_process_that_is_alone_writes_nothing(tmp_path: Path) -> None:
    with signs_of_life(tmp_path, 0, shown=False):
        pass
    assert not list(tmp_path.iterdir())
