"""`coattn fit`, `validate`, `test` and `predict`: Lightning's command line, which is in `coattn.training.cli`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coattn._internal.configs import packaged_configs
from coattn._internal.files import require


def main(arguments: Sequence[str]) -> int:
    """Run a training command, given with its name and all its arguments, and return its exit status.

    `--config NAME` may name a configuration that comes with the package.

    Raises:
        ModuleNotFoundError: The extra `train` is not installed.
    """
    require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.cli import main as run

    return run(_with_packaged_configs(arguments))


def _with_packaged_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the file of a packaged configuration in place of its name. An existing file comes first."""
    known, found = packaged_configs(), list(arguments)
    for number, argument in enumerate(arguments):
        option, equals, name = argument.partition("=")
        if option != "--config" and (number == 0 or arguments[number - 1] != "--config"):
            continue
        name = name if equals else argument
        if name in known and not Path(name).exists():
            found[number] = f"--config={known[name]}" if equals else str(known[name])
    return found
