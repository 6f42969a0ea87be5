"""What tools measured, put into README.md between two marks."""

from __future__ import annotations

import sys
from pathlib import Path

from coattn._internal.files import atomic_path


def marks(tool: str) -> tuple[str, str]:
    """The lines before and after what a tool writes."""
    return f"<!-- {tool} begins -->\n", f"<!-- {tool} ends -->\n"


def write_between(path: Path, tool: str, text: str) -> None:
    """Put `text` between the marks of a tool, in place of what stands there."""
    begins, ends = marks(tool)
    content = path.read_text(encoding="utf-8")
    if any(content.count(mark) != 1 for mark in (begins, ends)):
        sys.exit(f"{path}: must have the lines {begins!r} and {ends!r} once each")
    before, _, rest = content.partition(begins)
    with atomic_path(path) as partial:
        partial.write_text(f"{before}{begins}\n{text}\n{ends}{rest.partition(ends)[2]}", encoding="utf-8")
