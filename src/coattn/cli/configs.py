"""`coattn configs`: the configurations that come with the package."""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
from pathlib import Path

from coattn._internal.configs import find_config, packaged_configs

DESCRIPTION = """\
List the configurations that come with coattn, show the header of one (commands, data, time, score), or copy one to
change it. `coattn fit --config NAME` takes these names too.

  coattn configs
  coattn configs show easy_vqa
  coattn configs copy easy_vqa my_config.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn configs`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", help="Without an action all are listed.")
    showing = actions.add_parser("show", help="Show the header of a configuration.")
    copying = actions.add_parser("copy", help="Copy a configuration, to change it.")
    for action in (showing, copying):
        action.add_argument("name", metavar="NAME", help="The configuration, by its name in the list.")
    copying.add_argument(
        "dest", metavar="DEST", nargs="?", help="The file or folder to write to (default: the current folder)."
    )


def run(args: argparse.Namespace) -> int:
    """List, show or copy."""
    if args.action == "copy":
        return _copy(args.name, args.dest)
    if args.action == "show":
        print("\n".join(_header(find_config(args.name))))
        return 0
    configs = packaged_configs()
    width = max(map(len, configs))
    for name, path in configs.items():
        paragraph = " ".join(itertools.takewhile(bool, map(str.strip, _header(path))))
        print(f"{name:<{width}}  {re.split(r'[.](?= [A-Z]|$)', paragraph)[0]}.")  # its first sentence
    return 0


def _copy(name: str, dest: str | None) -> int:
    source = find_config(name)
    path = Path(source.name if dest is None else dest)
    if path.is_dir():
        path /= source.name
    if path.exists():
        raise ValueError(f"{path} already exists; give another file or remove it")
    shutil.copyfile(source, path)
    print(f"{path}: train with `coattn fit --config {path}`")
    return 0


def _header(path: Path) -> list[str]:
    """The comment at the beginning of a configuration, without its signs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").removeprefix(" ") for line in lines[:end]] or [""]
