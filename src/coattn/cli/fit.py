"""`coattn fit`, `validate`, `test` and `predict`, which are built in `coattn.training.cli.commands`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from coattn._internal.configs import packaged_configs
from coattn._internal.files import require


def main(arguments: Sequence[str]) -> int:
    """Run a training command, given with its name and all its arguments, and return its exit status.

    `--config NAME` may name a configuration that comes with the package.

    Raises:
        ModuleNotFoundError: The extra `train` is not installed.
    """
    with _absent("torchvision", "transformers", "scipy", "matplotlib") if "--help" in arguments else nullcontext():
        require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.cli.commands import main as run

    return run(_with_packaged_configs(arguments))


@contextmanager
def _absent(*packages: str) -> Iterator[None]:
    """Hide packages from torchmetrics, which lightning imports and which imports all of them for metrics not used here.

    They take more than half of the time of `--help`. Only `--help` hides them, because torchmetrics remembers it.
    """
    optional: Any = require("lightning_utilities.core.imports", "train")
    version_of = optional._version

    def version(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return version_of(name)

    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    optional._version = version
    try:
        yield
    finally:
        optional._version = version_of
        for name in hidden:
            del sys.modules[name]


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
