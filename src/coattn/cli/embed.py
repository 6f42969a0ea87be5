"""`coattn embed`: a store of token embeddings of questions."""

from __future__ import annotations

import argparse

import torch

from coattn._internal.progress import progress
from coattn._internal.tensors import find_device
from coattn.cli.arguments import positive
from coattn.datasets.question_embeddings import embed_questions, read_questions
from coattn.datasets.table_columns import given_columns
from coattn.text.encoders import TextEncoder

DESCRIPTION = """\
Run a pretrained text encoder of transformers once over all distinct questions, and keep its token embeddings. Any model
can be trained on the store. The store contains the encoder, so that new questions can be asked.

  coattn embed data/mine/train_questions.json data/mine/val_questions.json data/mine/embeddings \\
      --encoder sentence-transformers/all-MiniLM-L6-v2 --allow-download"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn embed`."""
    parser.add_argument(
        "questions",
        metavar="QUESTIONS",
        nargs="+",
        help="Files of questions: official .json, .txt with one question per line, .csv or .tsv.",
    )
    parser.add_argument("out", metavar="OUT", help="The folder to write. An unfinished one is continued.")
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="NAME_OR_FOLDER",
        help="The text encoder: a name on the Hub, or a folder with model.safetensors.",
    )
    parser.add_argument("--allow-download", action="store_true", help="Fetch the encoder if it is not on this machine.")
    parser.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="The type of the stored numbers (%(default)s).",
    )
    parser.add_argument(
        "--max-tokens",
        type=positive,
        metavar="N",
        help="Cut questions to this number of tokens (default: the limit of the encoder).",
    )
    parser.add_argument(
        "--column", metavar="question=NAME", action="append", default=[], help="Read this column of a table."
    )
    parser.add_argument("--encoding", default="utf-8", help="The encoding of text files and tables (%(default)s).")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=64,
        metavar="N",
        help="Encode this number of questions at once (%(default)s).",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="Run the encoder on this device (%(default)s).",
    )


def run(args: argparse.Namespace) -> int:
    """Encode the questions and print a summary."""
    questions = read_questions(args.questions, columns=given_columns(args.column), encoding=args.encoding)
    encoder = TextEncoder.load(
        args.encoder, allow_download=args.allow_download, max_tokens=args.max_tokens, device=find_device(args.device)
    )
    with progress("embed", len(questions), unit="questions") as advance:
        embedded = embed_questions(
            questions, args.out, encoder, dtype=args.dtype, batch_size=args.batch_size, progress=advance
        )
    print(f"{args.out}: {embedded.done} questions embedded, {embedded.found} found, width {encoder.dim}, {args.dtype}")
    return 0
