"""`coattn explain-test`: measure how faithful the explanations of a model are."""

from __future__ import annotations

import argparse
from pathlib import Path

from coattn.cli.arguments import HUB_MODEL, add_allow_download, positive, require_config

DESCRIPTION = """\
Measure how faithful the explanations of a model are. Regions are shown, and removed, from the most to the least
important one by each method, and the probability of the predicted answer is followed. The score is the area under
insertion minus the area under deletion, minus that of random orders, in points. The result is printed, written into the
model card, and named on the pictures of `coattn ask --map`."""
EXAMPLE = """\
  coattn explain-test runs/mine/model
  coattn explain-test runs/mine/model --config configs/mine.yaml --methods dependence attention shapley \\
      --json faithfulness.json --curve faithfulness.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn explain-test`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument("model", metavar="MODEL", help=f"The model directory, or {HUB_MODEL}.")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="The configuration it was trained with, for its data (default: config.yaml beside MODEL).",
    )
    parser.add_argument("--split", choices=("val", "test"), default="val", help="Whose questions to use (default val).")
    parser.add_argument(
        "--methods",
        metavar="NAME",
        nargs="+",
        default=[],
        help="Which methods to measure (default dependence, and attention and rollout if the model has maps).",
    )
    parser.add_argument(
        "--questions", metavar="N", type=positive, default=300, help="How many questions (default 300)."
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write all numbers and curves here too.")
    parser.add_argument("--curve", metavar="FILE.png", type=Path, help="Draw the curves here.")
    parser.add_argument("--device", default="cpu", help="Where the model runs: cpu (default), cuda, ..., or auto.")
    add_allow_download(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and keep the report."""
    if args.questions < 2:
        raise ValueError(f"--questions must be at least 2, got {args.questions}")
    if args.curve is not None and args.curve.suffix.lower() != ".png":
        raise ValueError(f"--curve {args.curve}: the name must end in .png")
    from coattn._internal.files import atomic_path, write_json
    from coattn._internal.tensors import find_device
    from coattn.explain.faithful import save_report, summary, table
    from coattn.serialization.directory import load_directory
    from coattn.serialization.hub import PREFIX

    on_hub = args.model.startswith(PREFIX)
    if on_hub and args.config is None:
        raise ValueError(f"{args.model}: give the configuration of its data with --config")
    if args.config is not None:
        require_config(args.config)
    directory = load_directory(args.model, allow_download=args.allow_download)  # before Lightning is imported
    from coattn.training.data.config import open_data
    from coattn.training.evaluation.faithfulness import measure_explanations

    data = open_data(args.config or directory.folder.resolve().parent / "config.yaml", directory.folder)
    data.check_inputs(directory.extractor, directory.text_encoder, directory.max_tokens)
    questions = measure_explanations(
        directory,
        data,
        args.split,
        list(dict.fromkeys(args.methods)),
        num_questions=args.questions,
        device=find_device(args.device),
    )
    report = summary(questions, args.split)
    print(table(report))
    if not on_hub:  # the cache of downloads holds what is on the Hub
        save_report(directory.folder, report)
        print(f"\n{args.model}: written into the model card")
    if args.json is not None:
        write_json(args.json, report, indent=1)
    if args.curve is not None:
        from coattn.visualization.faithfulness import draw_faithfulness

        with atomic_path(args.curve) as partial:
            draw_faithfulness(report).save(partial, format="PNG")
    return 0
