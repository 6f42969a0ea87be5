"""One kind of files that are damaged, and how a command is run on them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from coattn.cli import main


class Format(NamedTuple):
    """One kind of files.

    Attributes:
        make: writes the files into a folder.
        read: reads them, and returns something to compare.
        hashed: patterns of files whose content a hash protects: what is read is unchanged, or it is refused.
        weight: how often it is damaged, compared with others.
        untouched: patterns of files that are not damaged.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    hashed: tuple[str, ...] = ()
    weight: float = 1.0
    untouched: tuple[str, ...] = ()


def command(*arguments: object) -> str:
    """The output of a command; its errors are raised."""
    os.environ["COATTN_TRACEBACK"] = "1"
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            status = main([str(argument) for argument in arguments])
    except SystemExit as error:
        raise ValueError(f"exit {error.code}: {printed.getvalue()}") from None
    finally:
        del os.environ["COATTN_TRACEBACK"]
    assert status in (0, 1), (status, printed.getvalue())
    return printed.getvalue()
