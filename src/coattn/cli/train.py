"""`coattn train`: from a table and a folder of photos to a model, with all steps between."""

from __future__ import annotations

import argparse
import os
import sys

from coattn._internal.files import require
from coattn.cli.arguments import positive, require_config, require_table
from coattn.cli.extractors import OPTIONS, add_extractor_arguments, build_from_arguments
from coattn.datasets import table
from coattn.datasets.rows import DELIMITERS

DESCRIPTION = """\
Train a model on a table of questions about photos: prepare the data, describe the photos, train, test, and compare the
model with its question-only twin and with the prior. RUN/steps.txt lists each step as a command. After an interruption
run the same command again. A command with other settings reuses what still fits.

  coattn train answers.csv --images photos --out runs/mine
  coattn train answers.csv --images photos --out runs/mine --epochs 40 --column question="Question text"
  coattn train answers.csv --images photos --out runs/mine --extractor torchvision --model resnet50 --weights default"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn train`: its own, and those of `prepare table` and `extract`."""
    parser.add_argument("--out", metavar="RUN", required=True, help="The folder of the run.")
    parser.add_argument(
        "--config", metavar="NAME", help="A configuration file, or a name in `coattn configs` (default: by the data)."
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="The number of epochs (default: by the data).")
    parser.add_argument(
        "--encoder", metavar="FOLDER", help="The folder of a pretrained text encoder for the questions (default: none)."
    )
    table.READER.add_arguments(parser)
    add_extractor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train."""
    require_table(args.table)
    if args.config is not None and os.path.exists(args.config):  # else it is a name of `coattn configs`
        require_config(args.config)
    require("lightning", "train")
    require("jsonargparse", "train")
    from coattn.training.stop_signals import Stopped
    from coattn.training.train import train

    try:
        train(
            args.table,
            out=args.out,
            images=args.images,
            config=args.config,
            epochs=args.epochs,
            seed=args.seed,
            extractor=build_from_arguments(args),
            extractor_options=extractor_options(args),
            encoder=args.encoder,
            columns=table.given_columns(args.column) | ({"group": args.group} if args.group else {}),
            val_fraction=args.val_fraction,
            test_fraction=args.test_fraction,
            metric=args.metric,
            encoding=args.encoding,
            delimiter=DELIMITERS.get(args.delimiter),
            skip_bad_rows=args.skip_bad_rows,
        )
    except (KeyboardInterrupt, Stopped) as stopped:
        print(f"coattn: interrupted; run the same command again to resume {args.out}", file=sys.stderr)
        return int(stopped.code or 1) if isinstance(stopped, Stopped) else 130
    return 0


def extractor_options(args: argparse.Namespace) -> list[str]:
    """The options of `coattn extract` that mean the same extractor."""
    words = ["--extractor", args.extractor]
    for option in OPTIONS:
        value = getattr(args, option.name)
        if value is None:
            continue
        words.append(option.flag)
        if isinstance(value, tuple):
            words.append(("-" if option.name == "regions" else "x").join(map(str, value)))
        elif isinstance(value, list):
            words += map(str, value)
        elif value is not True:
            words.append(str(value))
    return words
