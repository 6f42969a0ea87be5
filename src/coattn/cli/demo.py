"""`coattn demo`: the server with a web page."""

from __future__ import annotations

import argparse

from coattn.cli import serve

DESCRIPTION = """\
Show a web page that asks models about images, on the loopback interface unless told otherwise. The page loads nothing
from elsewhere."""
EXAMPLE = """\
  coattn demo runs/mine/model
  coattn demo small=runs/small/model large=runs/large/model --port 9000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, which are those of `coattn serve`."""
    serve.add_arguments(parser)
    parser.epilog = f"examples:\n{EXAMPLE}"


def run(args: argparse.Namespace) -> int:
    """Serve the page and the models until the process is told to stop."""
    return serve.serve_models(args, page=True)
