"""`coattn models`: the presets, and the sizes of one."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from coattn._internal.hints import did_you_mean

DESCRIPTION = """\
List the models that a configuration can name as `model.preset`, or show the sizes of one, with their defaults.

  coattn models
  coattn models mcan_small"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn models`."""
    parser.add_argument("name", metavar="PRESET", nargs="?", help="Show the sizes of this model.")


def run(args: argparse.Namespace) -> int:
    """List the presets, or describe one."""
    from coattn.models import GENERATORS, PRESETS

    presets: dict[str, Callable[..., Any]] = {**PRESETS, **GENERATORS}
    if args.name is None:
        width = max(map(len, presets))
        for name, preset in presets.items():
            print(f"{name:<{width}}  {summary(preset)}")
        return 0
    if args.name not in presets:
        raise ValueError(f"there is no preset {args.name!r}{did_you_mean(args.name, presets)}")
    print(describe(args.name, presets))
    return 0


def summary(preset: Callable[..., Any]) -> str:
    """The first line of a preset's documentation; of a variant, what it changes."""
    if isinstance(preset, partial):
        changed = ", ".join(f"{name}={value!r}" for name, value in preset.keywords.items())
        return f"{preset.func.__name__} with {changed}."
    return (inspect.getdoc(preset) or "").partition("\n")[0]


def describe(name: str, presets: dict[str, Callable[..., Any]]) -> str:
    """A preset's summary, its sizes with default and meaning, and how a configuration sets them."""
    from coattn.models import FROM_DATA

    preset = presets[name]
    meanings = argument_meanings(preset, presets)
    sizes = {
        parameter.name: "required" if parameter.default is parameter.empty else _yaml(parameter.default)
        for parameter in inspect.signature(preset).parameters.values()
        if parameter.name not in FROM_DATA
    }
    names, defaults = max(map(len, sizes)), max(map(len, sizes.values()))
    rows = [f"  {size:<{names}}  {default:<{defaults}}  {meanings.get(size, '')}" for size, default in sizes.items()]
    size = next(size for size, default in sizes.items() if default != "required")
    return "\n".join(
        [
            f"{name}: {summary(preset)}",
            "",
            f"  {'size':<{names}}  {'default':<{defaults}}  meaning",
            *(row.rstrip() for row in rows),
            "",
            "The widths of the input and the number of answers follow from the data.",
            f"In a configuration: model.preset: {name}, model.sizes: {{{size}: {sizes[size]}}}",
        ]
    )


def argument_meanings(preset: Callable[..., Any], presets: dict[str, Callable[..., Any]]) -> dict[str, str]:
    """The section `Args:` of a preset's documentation, and of the presets that it refers to ("as in `stack`")."""
    text = inspect.getdoc(preset.func if isinstance(preset, partial) else preset) or ""
    meanings: dict[str, str] = {}
    for other in re.findall(r"as in `(\w+)`", text):
        if other in presets and presets[other] is not preset:
            meanings |= argument_meanings(presets[other], presets)
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    for found in re.finditer(r"^    (\w+): ((?:.*\n?)(?:^ {8}.*\n?)*)", section[1] if section else "", re.MULTILINE):
        meanings[found[1]] = " ".join(found[2].split())
    return meanings


def _yaml(value: Any) -> str:
    """A default as a YAML file spells it."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
