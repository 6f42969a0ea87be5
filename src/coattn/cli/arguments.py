"""The argument parser of all commands except those of Lightning. Mistakes are ValueErrors."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from coattn._internal.hints import did_you_mean
from coattn._internal.kinds import kind_of

_UNKNOWN = "unrecognized arguments: "


HUB_MODEL = "hf://user/name@revision, a model on the Hugging Face Hub"


def add_allow_download(parser: argparse.ArgumentParser) -> None:
    """Declare --allow-download, for a model that may be one of the Hub; see `coattn.serialization.hub.local_model`."""
    parser.add_argument(
        "--allow-download", action="store_true", help="Download a model of the Hub that is not on this machine."
    )


def positive(text: str) -> int:
    """Parse a whole number of the command line that must be above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def above_zero(text: str) -> float:
    """Parse a finite number of the command line that must be above 0, a fraction too."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def require_table(path: str | Path) -> None:
    """Refuse what is neither a table nor a folder, before slow libraries are imported.

    Raises:
        FileNotFoundError: there is no `path`.
        ValueError: it is something else.
    """
    _require_kind(
        path,
        {"a table", "a JSON file", "a Parquet file", "an Arrow file", "a folder"},
        "a table (.csv, .tsv, .json, .jsonl, .parquet or .arrow) or a folder of tables",
    )


def require_config(path: str | Path) -> None:
    """Refuse what is no configuration, before slow libraries are imported.

    Raises:
        FileNotFoundError: there is no `path`.
        ValueError: it is a folder or another kind of file.
    """
    # A shell passes `<(command)` as a pipe, which is a special file.
    kinds = {"a configuration", "a JSON file", "another kind of file", "a special file"}
    _require_kind(path, kinds, "a configuration (.yaml)")


def _require_kind(path: str | Path, kinds: set[str], needed: str) -> None:
    kind = kind_of(path)
    if kind == "missing":
        raise FileNotFoundError(f"{path}: there is no such file; give {needed}")
    if kind not in kinds:
        raise ValueError(f"{path}: is {kind}, not {needed}")


def keep_inputs(option: str, out: Path | None, inputs: Iterable[str | Path | None]) -> None:
    """Refuse to write the output of `option` over one of the files that the command reads.

    Raises:
        ValueError: `out` is one of `inputs`.
    """
    if out is not None and out.exists():
        for path in inputs:
            if path is not None and Path(path).exists() and out.samefile(path):
                raise ValueError(f"{option} {out} would replace a file that this command reads; give another name")


class ArgumentParser(argparse.ArgumentParser):
    """A parser that takes no shortened options, keeps the line breaks of its texts, and raises ValueError."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**(defaults | options))

    def error(self, message: str) -> NoReturn:
        """Raise a mistake of the command line.

        Raises:
            ValueError: Always.
        """
        if message.startswith(_UNKNOWN):
            name = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            message = f"there is no argument {name!r}{did_you_mean(name, self._options()) if name[0] == '-' else ''}"
        see = "" if message.endswith("?") else f"; see {self.prog} --help"
        raise ValueError(f"{message.removeprefix('argument ')}{see}")

    def _options(self) -> Iterator[str]:
        """All options of this parser and of its subparsers."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._options()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among the choices of an argument, with the nearest one."""
        if action.choices is not None and value not in action.choices:
            hint = did_you_mean(str(value), map(str, action.choices))
            subject = None if isinstance(action, argparse._SubParsersAction) else action
            raise argparse.ArgumentError(subject, f"there is no {str(value)!r}{hint}")
