"""`coattn prepare`: a data set to questions and annotations."""

from __future__ import annotations

import argparse

from coattn.datasets import daquar, easy_vqa, sort_of_clevr, table
from coattn.datasets.prepared import write_dataset
from coattn.datasets.report import format_report

DESCRIPTION = """\
Turn a data set, or your own table, into questions and annotations per split (official VQA layout), a list of the
images, and a report.

  coattn prepare easy-vqa data/easy_vqa
  coattn prepare daquar DAQUAR_FOLDER data/daquar
  coattn prepare sort-of-clevr SORT_OF_CLEVR_FOLDER data/sort_of_clevr
  coattn prepare table answers.csv --images scans data/mine"""

# Each reader has DESCRIPTION, add_arguments(parser) and from_arguments(args) -> Dataset.
READERS = {"daquar": daquar, "easy-vqa": easy_vqa, "sort-of-clevr": sort_of_clevr, "table": table}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per reader, each ending with OUT."""
    readers = parser.add_subparsers(title="data sets", metavar="NAME", required=True)
    for name, reader in READERS.items():
        summary = reader.DESCRIPTION.splitlines()[0]
        subparser = readers.add_parser(
            name,
            help=summary,
            description=reader.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        reader.add_arguments(subparser)
        subparser.add_argument("out", metavar="OUT", help="folder to write; may hold the same data set already")
        subparser.set_defaults(reader=reader)


def run(args: argparse.Namespace) -> int:
    """Read, write, and print the report."""
    print(format_report(write_dataset(args.reader.from_arguments(args), args.out)))
    return 0
