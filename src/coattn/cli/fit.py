"""`coattn fit`, `validate`, `test` and `predict`, which are built in `coattn.training.cli.commands`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

from coattn._internal.configs import packaged_configs
from coattn._internal.files import require

_UNUSED = ("torchvision", "transformers", "scipy", "matplotlib")


def main(arguments: Sequence[str]) -> int:
    """Run a training command, given with its name and all its arguments, and return its exit status.

    `--config NAME` may name a configuration that comes with the package.

    Raises:
        ModuleNotFoundError: The extra `train` is not installed.
    """
    with _quick_imports() if "--help" in arguments else nullcontext():
        require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.cli.commands import main as run

    return run(_with_packaged_configs(arguments))


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Import lightning without what it needs for training only, which takes more than half of the time of `--help`.

    torchmetrics, which lightning imports, imports packages for metrics that are not used here; they are hidden. Of
    torch's compiler, lightning needs a class for `isinstance` and a decorator, which are replaced by empty ones. Only
    `--help` may do this, because both packages remember it.
    """
    optional: Any = require("lightning_utilities.core.imports", "train")
    version_of = optional._version

    def version(name: str) -> str:
        if name in _UNUSED:
            raise PackageNotFoundError(name)
        return version_of(name)

    compiler: Any = ModuleType("torch._dynamo")
    compiler.OptimizedModule = type("OptimizedModule", (), {})
    compiler.disable = lambda function, *_, **__: function
    # None makes an import fail.
    replaced: dict[str, Any] = dict.fromkeys(_UNUSED) | {"torch._dynamo": compiler}
    replaced = {name: module for name, module in replaced.items() if name not in sys.modules}
    sys.modules.update(replaced)
    optional._version = version
    try:
        yield
    finally:
        optional._version = version_of
        for name in replaced:
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
