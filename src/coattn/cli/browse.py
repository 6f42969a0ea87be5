"""`coattn browse`: a web page of the answers in a result file."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Write one self-contained web page of the answers in a result file: confusions, calibration, risk and coverage, the most
confident mistakes with pictures, and all questions with filters. The page needs no server and no network."""
EXAMPLE = """\
  coattn browse runs/mine/predictions/test.json --questions runs/mine/data/test_questions.json \\
      --annotations runs/mine/data/test_annotations.json --images runs/mine/data/images.json --out report.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn browse`."""
    parser.epilog = f"example:\n{EXAMPLE}"
    parser.add_argument("results", metavar="RESULTS", type=Path, help="The result file, as `coattn test` writes it.")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="Q.json", help="The questions, in the format of VQA v2."
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="The human answers to them.")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.html", help="The page to write.")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="Image folders, or a JSON file from image id to file, for the pictures of mistakes.",
    )
    parser.add_argument(
        "--train-questions",
        type=Path,
        nargs="+",
        default=[],
        metavar="T.json",
        help="Training questions, to filter by what training has seen.",
    )
    parser.add_argument("--metric", metavar="METRIC", help="The metric (default: that of the annotations).")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from coattn.datasets.results import read_results
    from coattn.datasets.vqa_json import read_vqa
    from coattn.features.extract.images import find_images
    from coattn.visualization.browse import write_page

    if args.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {args.out}: the name must end in .html")
    data = read_vqa(args.questions, args.annotations)
    training = [record for path in args.train_questions for record in read_vqa(path, None).records]
    write_page(
        args.out,
        read_results(args.results, data.records),
        data.records,
        args.metric or data.metric,
        title=str(args.results),
        training=training or None,
        images=find_images(args.images) if args.images else None,
    )
    print(f"{args.out}: {len(data.records)} questions")
    return 0
