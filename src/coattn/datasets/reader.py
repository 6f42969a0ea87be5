"""The description of a reader for `coattn prepare`, and the arguments that readers of published data sets share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from coattn.datasets.prepared import Dataset


class Reader(NamedTuple):
    """A data set of `coattn prepare`.

    Attributes:
        description: the help text; its first line is shown in the list of data sets.
        add_arguments: adds the arguments before OUT.
        from_arguments: reads the data set, given the parsed arguments.
        checked: the real files on which the reader was checked, or the source of the layout; for docs/data.md.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    from_arguments: Callable[[argparse.Namespace], Dataset]
    checked: str


class Option(NamedTuple):
    """An argument of a reader's function that is an option of the command.

    Attributes:
        default: its default value.
        help: its help, a complete sentence.
        choices: the allowed texts; empty for a number.
    """

    default: Any
    help: str
    choices: Sequence[str] = ()


VALIDATION = {
    "val_fraction": Option(0.1, "Hold out this share of the training images as val (default 0.1; 0 holds out none).")
}
SKIP_BAD_ROWS = "Leave defective records out and list them in report.json, instead of refusing the data set."


def published_reader(
    description: str,
    read: Callable[..., Dataset],
    options: Mapping[str, Option] = MappingProxyType({}),
    *,
    checked: str,
    with_images: bool = False,
) -> Reader:
    """The reader of a published data set: `coattn prepare NAME FILES [--images DIR] [options] OUT`.

    Args:
        description: see `Reader`.
        read: called with the files, and by keyword with `images`, `skip_bad_rows` and the options.
        options: argument name to its description.
        checked: see `Reader`.
        with_images: the images are among the files, so that there is no `--images` and no argument `images`.
    """

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("files", metavar="FILES", type=Path, help="Folder, zip archive or file of the authors.")
        if not with_images:
            parser.add_argument(
                "--images", metavar="DIR", type=Path, help="Folder of the images; images.json lists them."
            )
        parser.add_argument("--skip-bad-rows", action="store_true", help=SKIP_BAD_ROWS)
        for name, option in options.items():
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                default=option.default,
                type=str if option.choices else float,
                choices=option.choices or None,
                metavar=None if option.choices else "F",
                help=option.help,
            )

    def from_arguments(args: argparse.Namespace) -> Dataset:
        names = ["skip_bad_rows", *options, *([] if with_images else ["images"])]
        return read(args.files, **{name: getattr(args, name) for name in names})

    return Reader(description, add_arguments, from_arguments, checked)
