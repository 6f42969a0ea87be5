from __future__ import annotations

import json
from pathlib import Path

from coattn.apps.schema import json_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def test_the_page_shows_the_schema() -> None:
    """To renew the page, replace the text between the two marks by `shown`."""
    shown = f"<!-- schema -->\n```json\n{json.dumps(json_schema(), indent=1)}\n```\n<!-- /schema -->"
    assert shown in PAGE.read_text(encoding="utf-8")
