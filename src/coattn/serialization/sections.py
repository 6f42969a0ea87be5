"""Write sections of a model card after the model was saved: risk, faithfulness of explanations."""

from __future__ import annotations

import os
import re
from pathlib import Path

from coattn._internal.files import atomic_path
from coattn.serialization.files import CARD


def write_section(folder: str | os.PathLike[str], heading: str, text: str) -> None:
    """Write a section of the README.md of a model directory, and replace an existing one of that heading.

    Args:
        folder: the model directory.
        heading: without the hashes.
        text: Markdown without headings of the first two levels.
    """
    path = Path(folder) / CARD
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    section = f"## {heading}\n\n{text.strip()}\n"
    found = re.search(rf"^## {re.escape(heading)}\n.*?(?=^##? |\Z)", card, re.MULTILINE | re.DOTALL)
    if found is None:
        card = f"{card.rstrip()}\n\n{section}"
    else:
        after = card[found.end() :]
        card = card[: found.start()] + section + (f"\n{after}" if after else "")
    with atomic_path(path) as partial:
        partial.write_text(card.lstrip("\n"), encoding="utf-8")
