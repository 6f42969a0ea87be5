"""`coattn export`: a model directory to a folder that answers without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from coattn.cli.arguments import HUB_MODEL, add_allow_download

DESCRIPTION = """\
Export a model to ONNX: a folder that answers without torch, through coattn.runtime or coattn serve."""
EXAMPLE = """\
  coattn export runs/mine/model exported
  coattn export runs/mine/model exported --int8 --check data/mine
  python -m coattn.runtime ask exported kitchen.jpg "what is on the table?" """


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn export`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument("model", metavar="MODEL", help=f"The model directory, as coattn fit writes it, or {HUB_MODEL}.")
    parser.add_argument("out", metavar="OUT", type=Path, help="The folder to write; it must not exist.")
    parser.add_argument("--maps", action="store_true", help="Export the attention maps too, as a second graph.")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="Store the weights of matrix products as 8-bit integers; see --check for the answers that this changes.",
    )
    parser.add_argument(
        "--check",
        metavar="DATA",
        type=Path,
        help="Ask the model and its export the test questions of this folder (coattn prepare, with features), and "
        "write the share of answers that differ into the card.",
    )
    add_allow_download(parser)


def run(args: argparse.Namespace) -> int:
    """Export, check, and say what was written."""
    from coattn.export import export_folder
    from coattn.serialization.hub import local_model

    model = local_model(args.model, allow_download=args.allow_download)
    parity = export_folder(model, args.out, maps=args.maps, int8=args.int8, check=args.check)
    size = sum(path.stat().st_size for path in args.out.iterdir()) / 1e6
    print(f"{args.out}: {size:.1f} MB; logits differ by at most {parity.difference:.1e} from the model's")
    if parity.changed is not None:
        print(parity.changed)
    elif args.int8:
        print("the answers that int8 changes were not counted; --check DATA counts them")
    if parity.only_features:
        print(f"ask it about features, in Python: {parity.only_features}")
        return 0
    print(f'ask it without torch: python -m coattn.runtime ask {args.out} IMAGE "QUESTION"')
    return 0
