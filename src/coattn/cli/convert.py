"""`coattn convert`: feature stores from one form into another."""

from __future__ import annotations

import argparse

from coattn.features.convert import merge

DESCRIPTION = """\
merge: one file of a folder of shards, or of several stores made by the same extractor.

  coattn convert merge features/ features.h5
  coattn convert merge train_features/ val_features/ features.h5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn convert`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    merging = kinds.add_parser("merge", help="one file of a folder of shards, or of several stores", allow_abbrev=False)
    merging.add_argument("stores", nargs="+", metavar="STORE", help="folders of shards, or files")
    merging.add_argument("out", metavar="OUT.h5", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Merge, and say what came out."""
    store = merge(args.stores, args.out)
    print(f"{args.out}: {len(store)} images, {store.lengths.sum()} rows of {store.dim}, {store.dtype}")
    return 0
