"""What `coattn prepare` needs of a reader, and the arguments that readers of published data sets share."""

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
        description: its help; the first line stands in the list of data sets.
        add_arguments: adds the arguments before OUT.
        from_arguments: reads the data set that they mean.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    from_arguments: Callable[[argparse.Namespace], Dataset]


class Option(NamedTuple):
    """An argument of a reader's function that is an option of the command.

    Attributes:
        default: what holds without it.
        help: one line.
        choices: the texts it may be, or none for a number.
    """

    default: Any
    help: str
    choices: Sequence[str] = ()


VALIDATION = {"val_fraction": Option(0.1, "share of the training images held out as val, 0 for none (default 0.1)")}


def published_reader(
    description: str,
    read: Callable[..., Dataset],
    options: Mapping[str, Option] = MappingProxyType({}),
    *,
    with_images: bool = False,
) -> Reader:
    """The reader of a published data set: `coattn prepare NAME FILES [--images DIR] [options] OUT`.

    Args:
        description: see `Reader`.
        read: called with the files, and by keyword `images` and the options.
        options: name of the argument to what it is.
        with_images: whether the images are among the files; there is then no `--images`, and no `images`.
    """

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("files", metavar="FILES", type=Path, help="folder or zip archive with the authors' files")
        if not with_images:
            parser.add_argument(
                "--images", metavar="DIR", type=Path, help="folder of the images, to list where each is"
            )
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
        names = [*options] if with_images else ["images", *options]
        return read(args.files, **{name: getattr(args, name) for name in names})

    return Reader(description, add_arguments, from_arguments)
