"""coattn score: a result file -> its official scores."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = "Score a result file against the human answers: overall, by answer type and by question type, in percent."
EXAMPLE = """example:
  coattn score results.json --questions val_questions.json --annotations val_annotations.json --json scores.json

A result file is a list [{"question_id": 1, "answer": "yes"}, ...] with one answer for every annotated question.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn score`."""
    from coattn.datasets.vqa_json import METRICS

    parser.epilog = EXAMPLE
    parser.add_argument("results", type=Path, help="the result file, as `coattn predict` writes it")
    parser.add_argument("--questions", type=Path, required=True, metavar="Q.json", help="the questions (VQA v2 format)")
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="their human answers")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all scores here, by question as well")
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="by default what the annotations say (info.metric); if they do not, exact_match where every question has "
        "one answer, else vqa_accuracy",
    )


def run(args: argparse.Namespace) -> int:
    """Read, score, print, and write if asked."""
    from coattn.datasets.vqa_json import read_results, read_vqa
    from coattn.files import write_json
    from coattn.metrics.score import score

    data = read_vqa(args.questions, args.annotations)
    scores = score(read_results(args.results), data.records, args.metric or data.metric, where=str(args.results))
    if args.json is not None:
        write_json(args.json, scores.to_json(), indent=1)
    print(scores.table())
    return 0
