"""coattn fit, validate, test and predict: everything but the imports is in `coattn.training.cli`."""

from __future__ import annotations

from collections.abc import Sequence

from coattn._internal.files import require


def main(arguments: Sequence[str]) -> int:
    """Run a training command, given with its name; returns the exit status.

    Raises:
        ModuleNotFoundError: the extra `train` is not installed.
    """
    require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.cli import main as run

    return run(arguments)
