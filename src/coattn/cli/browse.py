"""`coattn browse`: a web page of the answers in a result file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coattn.cli.arguments import HUB_MODEL, add_allow_download

if TYPE_CHECKING:
    from coattn.datasets.records import Record
    from coattn.explain.maps import Explanation
    from coattn.visualization.browse import Explainer

DESCRIPTION = """\
Write one self-contained web page of the answers in a result file: confusions, calibration, risk and coverage, the most
confident mistakes as pictures, with --model with maps of what the answers depend on, and all questions with filters.
The page needs no server and no network."""
EXAMPLE = """\
  coattn browse runs/mine/predictions/test.json --questions runs/mine/data/test_questions.json \\
      --annotations runs/mine/data/test_annotations.json --images runs/mine/data/images.json \\
      --model runs/mine/model --features runs/mine/data/features --out report.html"""


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
        "--model", metavar="MODEL", help=f"The model of these answers, for maps of what they depend on: {HUB_MODEL}."
    )
    add_allow_download(parser)
    parser.add_argument(
        "--features",
        type=Path,
        metavar="STORE",
        help="The features of the images, for the maps (default: extracted from --images).",
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
    if args.model is None and args.features is not None:
        raise ValueError("--features is for maps of what the answers depend on: give --model too")
    if args.model is not None and not (args.features or args.images):
        raise ValueError("--model draws maps on images: give --images, --features or both")
    data = read_vqa(args.questions, args.annotations)
    training = [record for path in args.train_questions for record in read_vqa(path, None).records]
    results = read_results(args.results, data.records)
    images = find_images(args.images) if args.images else {}
    explain: Explainer | None = None
    if args.model is not None:
        from coattn.predictor import Predictor

        predictor = Predictor.load(args.model, features=args.features, allow_download=args.allow_download)

        def explain(record: Record) -> Explanation | None:
            picture = images.get(str(record.image_id))
            image = picture if args.features is None else str(record.image_id)
            if image is None:
                return None
            return predictor.attribute(predictor.encode(image, picture=picture), record.question)

    write_page(
        args.out,
        results,
        data.records,
        args.metric or data.metric,
        title=str(args.results),
        training=training or None,
        images=images,
        explain=explain,
    )
    print(f"{args.out}: {len(data.records)} questions")
    return 0
