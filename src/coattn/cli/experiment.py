"""`coattn experiment`: configurations trained with several seeds, or on several folds, and compared."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from coattn._internal.files import require
from coattn.cli.arguments import positive, require_config

DESCRIPTION = """\
Train configurations repeatedly, with several seeds or on several folds of the images, and compare them.

The report has the mean and the standard deviation over the seeds by kind of question, and the paired difference of
the first configuration from each of the others. An interrupted experiment continues with the same command. Settings
after two dashes are given to every fit and test.

  coattn experiment configs/daquar.yaml configs/daquar_question_only.yaml --seeds 5
  coattn experiment configs/easy_vqa.yaml --seeds 3 --folds 5 -- --trainer.max_epochs 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn experiment`."""
    add = parser.add_argument
    add(
        "configs", nargs="+", type=Path, metavar="CONFIG", help="Configurations; the first is compared with the others."
    )
    add("--seeds", type=positive, default=5, metavar="N", help="Number of seeds, from 0 on (default: %(default)s).")
    add("--folds", type=int, default=0, metavar="K", help="Cross-validate on K parts of the training images.")
    add("--jobs", type=positive, default=1, metavar="N", help="Runs at the same time (default: %(default)s).")
    add("--out", type=Path, metavar="DIR", help="Folder of the experiment (default: runs/experiments/CONFIG).")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; what follows `--` belongs to `coattn fit` and `coattn test`."""
    end = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:end])
    args.options = list(argv[end + 1 :])
    if args.folds and args.folds < 2:
        parser.error("argument --folds: must be at least 2")
    return args


def run(args: argparse.Namespace) -> int:
    """Run the experiment and print its report."""
    for config in args.configs:
        require_config(config)
    require("lightning", "train")
    from coattn.training.experiment import Experiment, experiment, format_report
    from coattn.training.stop_signals import Stopped

    out = args.out or Path("runs/experiments", args.configs[0].stem)
    plan = Experiment(tuple(args.configs), out, args.seeds, args.folds, tuple(args.options))
    try:
        report = experiment(plan, num_jobs=args.jobs)
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"coattn: ended by {name}; the same command continues", file=sys.stderr)
        return 128 + stopped.number
    print(f"\n{format_report(report)}\n\n{out / 'report.json'}: the same as JSON")
    return 0
