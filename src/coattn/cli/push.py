"""`coattn push`: a model directory to the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Upload a model directory to the Hugging Face Hub, as one commit. Everyone can then ask the model as hf://user/name.
Log in with `hf auth login` first, or set HF_TOKEN."""
EXAMPLE = """\
  coattn push runs/mine/model user/name --license apache-2.0 --language en --dataset HuggingFaceM4/VQAv2
  coattn ask hf://user/name --allow-download kitchen.jpg "what is on the table?" """


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn push`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="The model directory, as coattn fit writes it.")
    parser.add_argument("repo", metavar="USER/NAME", help="The repository on the Hub; it is created if need be.")
    parser.add_argument(
        "--license", metavar="ID", help="License of the model, for example apache-2.0 (default: that of its card)."
    )
    parser.add_argument(
        "--language", metavar="CODE", action="append", default=[], help="Language of the questions. Repeatable."
    )
    parser.add_argument(
        "--dataset",
        metavar="ID",
        action="append",
        default=[],
        help="Id on the Hub of a data set that the model was trained on. Repeatable.",
    )
    parser.add_argument("--private", action="store_true", help="Create the repository as a private one.")


def run(args: argparse.Namespace) -> int:
    """Upload, and say what was uploaded and what was not."""
    from coattn.serialization.push import push

    pushed = push(
        args.model,
        args.repo,
        license=args.license,
        languages=args.language,
        datasets=args.dataset,
        private=args.private,
    )
    print(f"{pushed.url}: {', '.join(pushed.files)}")
    if pushed.left_out:
        print(f"not uploaded, because they are not part of a model: {', '.join(pushed.left_out)}")
    print(f'ask it: coattn ask hf://{args.repo.removeprefix("hf://")} --allow-download IMAGE "QUESTION"')
    return 0
