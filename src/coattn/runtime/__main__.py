"""`python -m coattn.runtime ask FOLDER IMAGE QUESTION...`: ask an exported model from a shell, without torch."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence

from coattn._internal.terminal import exit_status
from coattn.explain.answers import UNSURE
from coattn.runtime.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Answer questions about an image and return the exit status; see `exit_status`."""
    parser = argparse.ArgumentParser(prog="python -m coattn.runtime", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask", help="Answer questions about an image.", allow_abbrev=False)
    ask.add_argument("folder", metavar="FOLDER", help="The folder that coattn export wrote.")
    ask.add_argument("image", metavar="IMAGE", help="The image file.")
    ask.add_argument("questions", metavar="QUESTION", nargs="+", help="One or more questions, in quotation marks.")
    ask.add_argument("--top-k", type=int, default=5, metavar="N", help="Number of answers (default: 5).")
    ask.add_argument("--max-risk", type=float, metavar="SHARE", help="Withhold answers that may be wrong more often.")
    ask.add_argument("--json", action="store_true", help="Print one JSON object for each question.")
    args = parser.parse_args(argv)
    return exit_status(lambda: _ask(args))


def _ask(args: argparse.Namespace) -> int:
    warnings.simplefilter("ignore", UserWarning)  # the reasons are printed
    predictor = Predictor.load(args.folder)
    image = predictor.encode(args.image)
    pairs = [(image, question) for question in args.questions]
    found = predictor.ask_many(pairs, top_k=args.top_k, max_risk=args.max_risk)
    for question, answers in zip(args.questions, found, strict=True):
        if args.json:
            value = {
                "image": args.image,
                "question": question,
                "answers": [{"answer": text, "confidence": confidence} for text, confidence in answers],
                "withheld": answers.withheld,
                "reasons": answers.reasons,
                "unknown_words": answers.unknown_words,
            }
            print(json.dumps(value, ensure_ascii=False))
        else:
            lines = (f"{100 * confidence:6.1f} %  {text}" for text, confidence in answers)
            unsure = [UNSURE] if answers.withheld else []
            print(question, *unsure, *lines, *(f"  {reason}" for reason in answers.reasons), sep="\n")
    if predictor.safeguards.missing:
        print(f"coattn: note: {predictor.safeguards.missing}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
