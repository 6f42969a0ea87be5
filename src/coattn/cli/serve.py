"""`coattn serve`: models over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from coattn.cli.arguments import HUB_MODEL, above_zero, add_allow_download, positive
from coattn.serialization.hub import PREFIX, local_model

DESCRIPTION = """\
Serve models over HTTP, on the loopback interface unless told otherwise. A model is a directory that coattn fit wrote,
or a folder that coattn export wrote, which needs no torch."""
EXAMPLE = """\
  coattn serve runs/mine/model
  curl -F image=@kitchen.jpg -F 'question=what is on the table?' http://127.0.0.1:8000/ask
  coattn serve small=runs/small/model large=runs/large/model --port 9000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn serve` and `coattn demo`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument(
        "models",
        metavar="[NAME=]MODEL",
        nargs="+",
        help=f"A model directory, an exported folder, or {HUB_MODEL}, with the name that requests use (default: the "
        "folder's name).",
    )
    add_allow_download(parser)
    parser.add_argument("--host", default="127.0.0.1", help="The address to listen on (default: 127.0.0.1).")
    parser.add_argument(
        "--port", type=_port, default=8000, help="The port to listen on; 0 takes a free one (default: 8000)."
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="Accept requests for this host name too, as a proxy sends it; * accepts any. Repeatable.",
    )
    parser.add_argument(
        "--max-body", type=above_zero, default=20, metavar="MB", help="Largest request (default: 20 MB)."
    )
    parser.add_argument(
        "--max-pixels",
        type=above_zero,
        default=40,
        metavar="MEGAPIXELS",
        help="Largest image (default: 40 megapixels).",
    )
    parser.add_argument(
        "--timeout",
        type=above_zero,
        default=30,
        metavar="SECONDS",
        help="Longest time to answer a request (default: 30 s).",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="Threads of a forward pass (default: one for each core, or for each second core with a model directory).",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until the process is told to stop."""
    return serve_models(args, page=False)


def serve_models(args: argparse.Namespace, *, page: bool) -> int:
    """Serve the models of the command line, with or without the demo page."""
    from coattn._internal.files import require

    for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from coattn.apps.server import Limits, serve

    limits = Limits(body=int(args.max_body * 1e6), pixels=int(args.max_pixels * 1e6), seconds=args.timeout)
    folders = named_folders(args.models, allow_download=args.allow_download)
    hosts = tuple(args.allow_host)
    serve(
        folders, host=args.host, port=args.port, limits=limits, allow_hosts=hosts, page=page, num_threads=args.threads
    )
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to 65535")
    return int(text)


def named_folders(models: Sequence[str], *, allow_download: bool = False) -> dict[str, Path]:
    """The folders by name; models of the Hub are downloaded if need be and allowed.

    Raises:
        ValueError: two models have the same name, or as `local_model` says.
    """
    folders: dict[str, Path] = {}
    for text in models:
        name, separator, path = text.partition("=")
        if not separator or Path(text).exists():
            name, path = "", text
        folder = local_model(path, allow_download=allow_download)
        if not name and path.startswith(PREFIX):
            name = path.removeprefix(PREFIX).partition("@")[0].rpartition("/")[2]
        if not name:
            # runs/mine/model is called "mine": nearly every model directory is called "model".
            places = [part for part in folder.resolve().parts if part != "model"]
            name = places[-1]
        if name in folders:
            raise ValueError(f"two models are called {name!r}; name them: {name}-1={folders[name]} {name}-2={folder}")
        folders[name] = folder
    return folders
