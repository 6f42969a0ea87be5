"""`coattn prepare`: a data set to questions and annotations."""

from __future__ import annotations

import argparse
from pathlib import Path

from coattn.datasets.prepared import MAX_NEAR_COPIES, write_dataset
from coattn.datasets.readers import READERS
from coattn.datasets.report import format_report

DESCRIPTION = """\
Turn a data set, or your own table, into questions and annotations per split (official VQA layout), a list of the
images, and a report (report.json, and the picture report.png with the extra 'plot'). The report names what leaks
between the splits: shared images, copies of pictures, and repeated questions.

  coattn prepare easy-vqa data/easy_vqa
  coattn prepare vqa-v2 VQA_FOLDER data/vqa_v2 --features features/coco
  coattn prepare gqa questions1.2.zip data/gqa
  coattn prepare table answers.csv --images scans data/mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand per reader; the last argument of each is OUT."""
    readers = parser.add_subparsers(title="data sets", metavar="NAME", required=True)
    for name, reader in READERS.items():
        subparser = readers.add_parser(
            name,
            help=reader.description.splitlines()[0],
            description=reader.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        reader.add_arguments(subparser)
        subparser.add_argument("out", metavar="OUT", help="Folder to write; it may hold the same data set.")
        subparser.add_argument(
            "--features", metavar="STORE", type=Path, help="Report the images that this feature store lacks."
        )
        subparser.add_argument(
            "--near-copies",
            action=argparse.BooleanOptionalAction,
            help="Look for pictures that are nearly the same as a training picture; every image is decoded. By default "
            f"this is done for up to {MAX_NEAR_COPIES} images.",
        )
        subparser.set_defaults(reader=reader)


def run(args: argparse.Namespace) -> int:
    """Read, write, and print the report."""
    known = None
    if args.features is not None:
        from coattn.features.store.reader import FeatureStore

        known = FeatureStore(args.features).__contains__
    from coattn.visualization.report import draw_report

    dataset = args.reader.from_arguments(args)
    report = write_dataset(dataset, args.out, has_features=known, near_copies=args.near_copies, draw=draw_report)
    print(format_report(report))
    return 0
