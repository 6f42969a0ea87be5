"""Progress where stderr is no terminal: plain lines, and none for quick work."""

from __future__ import annotations

import pytest

from coattn._internal import progress as module
from coattn._internal.progress import progress, tell


def test_a_line_after_each_interval_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("features", 1000, done=100) as advance:
        for seconds in (4, 8, 8):
            now[0] += seconds
            advance(150)
    assert capsys.readouterr().err.splitlines() == [
        "features: 400 of 1,000 images, 25.0 images/s, 24 s left",
        "features: 550 of 1,000 images, 22.5 images/s, 20 s left",
    ]
    with progress("scan", 5_000_000, unit="B") as advance:
        now[0] += 100
        advance(5_000_000)
    assert "scan: 5 of 5 MB, 0.1 MB/s in 1 min 40 s" in capsys.readouterr().err


def test_quick_or_hidden_work_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        with progress("features", 2, shown=shown) as advance:
            advance(2)
    assert capsys.readouterr() == ("", "")


def test_control_characters_are_shown_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    tell("image \x1b[31m é")
    assert capsys.readouterr().err == "image \\u001b[31m é\n"
