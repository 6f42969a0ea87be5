"""Fixtures shared by the tests of data sets."""

from __future__ import annotations

import pytest

from coattn.visualization import report


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else; test_prepared.py does it."""
    monkeypatch.setattr(report, "draw_report", lambda *_: None)
