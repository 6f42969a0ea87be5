"""`coattn inspect`: what is in a feature store."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from coattn.features.inspection import describe_store

DESCRIPTION = """\
Show what a feature store holds, and look through all its rows for values that must not be there.

  coattn inspect features/
  coattn inspect features.h5 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn inspect`."""
    parser.add_argument("path", metavar="STORE", help="folder or file of a feature store")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Describe."""
    found = describe_store(Path(args.path))
    print(json.dumps(found, ensure_ascii=False, indent=1) if args.json else _as_text(found))
    return 0


def _as_text(found: dict[str, Any], indent: str = "") -> str:
    """One line a value; nested values indented under their name."""
    lines = []
    width = max(map(len, found), default=0)
    for name, value in found.items():
        label = name.replace("_", " ")
        if isinstance(value, dict) and value:
            lines += [f"{indent}{label}", _as_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{label}", *(f"{indent}  {', '.join(map(str, entry.values()))}" for entry in value)]
        else:
            lines.append(f"{indent}{label:<{width}}  {_plain(value)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)
