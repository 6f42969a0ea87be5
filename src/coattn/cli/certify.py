"""`coattn certify`: add risk certificates and an index of the training images to a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from coattn.cli.arguments import require_config

DESCRIPTION = """\
Add to a model directory what `coattn ask --max-risk` needs: for 1, 5, 10 and 20 % risk the lowest confidence that is
proven on the validation questions to keep it, and an index of the training images, by which an image unlike them is
recognized. `coattn fit` writes both; this command is for older model directories and for other validation questions."""
EXAMPLE = """\
  coattn certify runs/mine/model
  coattn certify runs/mine/model --config configs/mine.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn certify`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="The model directory.")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="The configuration it was trained with, for its data (default: config.yaml beside MODEL_DIR).",
    )
    parser.add_argument("--device", default="cpu", help="Where the model runs: cpu (default), cuda, ..., or auto.")


def run(args: argparse.Namespace) -> int:
    """Certify, and print the certificates."""
    from coattn._internal.tensors import find_device
    from coattn.serialization.directory import load_directory

    if args.config is not None:
        require_config(args.config)
    directory = load_directory(args.model)  # a wrong folder is named before Lightning is imported
    from coattn.training.data.config import open_data
    from coattn.training.evaluation.certify import make_safeguards

    data = open_data(args.config or args.model.resolve().parent / "config.yaml", args.model)
    data.check_inputs(directory.extractor, directory.text_encoder, directory.max_tokens)
    if not data.has_validation:
        raise ValueError("the configuration has no validation questions, and risk is certified on them")
    safeguards = make_safeguards(directory, data, device=find_device(args.device))
    safeguards.save()
    print(safeguards.card())
    print(f"{args.model}: written")
    return 0
