"""Fixtures shared by the tests of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from coattn.visualization import report


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else; test_prepared.py does it."""
    monkeypatch.setattr(report, "draw_report", lambda *_: None)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of images, one of them in a subfolder, and a name with dots."""
    folder = tmp_path / "scans"
    (folder / "ct").mkdir(parents=True)
    for name in ("a1.png", "a2.jpg", "ct/B 3.PNG", "1.2.840.113.png"):
        Image.new("L", (4, 4)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder
