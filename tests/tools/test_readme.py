"""What tools put into README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from readme import marks, write_between

ROOT = Path(__file__).resolve().parents[2]


def test_text_goes_between_the_marks_of_its_tool(tmp_path: Path) -> None:
    readme, (begins, ends) = tmp_path / "README.md", marks("tools/x")
    readme.write_text(f"before\n{begins}{ends}after\n")
    write_between(readme, "tools/x", "old\n")
    write_between(readme, "tools/x", "new\n")
    assert readme.read_text() == f"before\n{begins}\nnew\n\n{ends}after\n"


def test_without_marks_nothing_is_written(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    with pytest.raises(SystemExit, match="must have the lines"):
        write_between(readme, "tools/x", "new\n")
    assert readme.read_text() == "no marks\n"


@pytest.mark.parametrize("tool", ["tools/compare", "tools/bench"])
def test_the_readme_has_the_marks(tool: str) -> None:
    assert [(ROOT / "README.md").read_text(encoding="utf-8").count(mark) for mark in marks(tool)] == [1, 1]
