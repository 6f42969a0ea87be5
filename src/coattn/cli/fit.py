"""`coattn fit`, `validate`, `test` and `predict`, which are built in `coattn.training.cli.commands`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from coattn._internal.configs import packaged_configs
from coattn._internal.files import require
from coattn.cli.arguments import require_config

_UNUSED = ("torchvision", "transformers", "scipy", "matplotlib")


def main(arguments: Sequence[str]) -> int:
    """Run a training command, given with its name and all its arguments, and return its exit status.

    `--config NAME` may name a configuration that comes with the package.

    Raises:
        ModuleNotFoundError: The extra `train` is not installed.
    """
    arguments = _with_packaged_configs(arguments)
    if "--help" in arguments and "lightning" not in sys.modules:
        _import_lightning_for_help()
    require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.cli.commands import main as run

    return run(arguments)


def _import_lightning_for_help() -> None:
    """Import lightning without what only training needs, which takes more than half of the time of `--help`.

    torchmetrics, which lightning imports, imports packages for metrics that are not used here; they are hidden. Of
    torch's compiler, lightning needs a class for `isinstance` and a decorator, which are replaced by empty ones. A
    release of lightning that needs more is not imported, and the caller imports it in the normal way. Only `--help`
    may do this, because these packages remember what was missing.
    """
    compiler: Any = ModuleType("torch._dynamo")
    compiler.OptimizedModule = type("OptimizedModule", (), {})
    compiler.disable = lambda function, *_, **__: function
    replaced: dict[str, Any] = dict.fromkeys(_UNUSED) | {"torch._dynamo": compiler}  # None makes an import fail
    replaced = {name: module for name, module in replaced.items() if name not in sys.modules}
    before, version = set(sys.modules), metadata.version

    def version_unless_hidden(distribution_name: str) -> str:
        if distribution_name in replaced:
            raise metadata.PackageNotFoundError(distribution_name)
        return version(distribution_name)

    sys.modules.update(replaced)
    metadata.version = version_unless_hidden
    try:
        importlib.import_module("lightning")
    except (ImportError, AttributeError):
        for name in sys.modules.keys() - before:
            if name.partition(".")[0] in ("lightning", "lightning_utilities", "torchmetrics"):
                del sys.modules[name]
    finally:
        metadata.version = version
        for name in replaced:
            del sys.modules[name]
        replaced.clear()  # packages that keep `version_unless_hidden` now find all versions


def _with_packaged_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the file of a packaged configuration in place of its name. An existing file comes first.

    Raises:
        ValueError: A file after --config is missing or no configuration, said before Lightning is imported.
    """
    known, found = packaged_configs(), list(arguments)
    for number, argument in enumerate(arguments):
        option, equals, name = argument.partition("=")
        if option != "--config" and (number == 0 or arguments[number - 1] != "--config"):
            continue
        name = name if equals else argument
        if name in known and not Path(name).exists():
            found[number] = f"--config={known[name]}" if equals else str(known[name])
        elif Path(name).suffix in (".yaml", ".yml") or os.path.exists(name):
            require_config(name)
    return found
