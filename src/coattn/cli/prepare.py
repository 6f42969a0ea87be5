"""`coattn prepare`: a data set to questions and annotations."""

from __future__ import annotations

import argparse
from pathlib import Path

from coattn.datasets import (
    clevr,
    coco_qa,
    daquar,
    easy_vqa,
    gqa,
    medical,
    photo_lists,
    shapes,
    sort_of_clevr,
    table,
    vqa,
)
from coattn.datasets.prepared import write_dataset
from coattn.datasets.reader import Reader
from coattn.datasets.report import format_report

DESCRIPTION = """\
Turn a data set, or your own table, into questions and annotations per split (official VQA layout), a list of the
images, and a report (report.json; report.png, a picture, with the extra 'plot').

  coattn prepare easy-vqa data/easy_vqa
  coattn prepare vqa-v2 VQA_FOLDER data/vqa_v2 --features features/coco
  coattn prepare gqa questions1.2.zip data/gqa
  coattn prepare table answers.csv --images scans data/mine"""


READERS: dict[str, Reader] = {
    **vqa.READERS,
    "gqa": gqa.READER,
    "clevr": clevr.READER,
    "coco-qa": coco_qa.READER,
    "daquar": daquar.READER,
    **photo_lists.READERS,
    **medical.READERS,
    "easy-vqa": easy_vqa.READER,
    "sort-of-clevr": sort_of_clevr.READER,
    "shapes": shapes.READER,
    "table": table.READER,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per reader, each ending with OUT."""
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
        subparser.add_argument("out", metavar="OUT", help="folder to write; may hold the same data set already")
        subparser.add_argument(
            "--features", metavar="STORE", type=Path, help="feature store: the report says which images it lacks"
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
    print(format_report(write_dataset(dataset, args.out, has_features=known, draw=draw_report)))
    return 0
