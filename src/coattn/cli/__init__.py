"""The command `coattn`. Each subcommand is a module of this package, imported only when it is called.

Such a module has `DESCRIPTION`, `add_arguments(parser)` and `run(args) -> exit status`, and `parse(parser, argv)` where
argparse needs help. The training commands are the exception: Lightning reads their command line itself, so
`fit.main(argv)` gets all of it.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence

from coattn import __version__
from coattn._internal.hints import did_you_mean
from coattn._internal.terminal import exit_status
from coattn.cli.arguments import ArgumentParser

COMMANDS = {
    "train": "train and judge a model from a table and a folder of photos, with all steps",
    "prepare": "turn a data set or a table into questions and annotations",
    "extract": "describe images by regions and store the features",
    "embed": "run a pretrained text encoder over questions and store the embeddings",
    "convert": "read features and checkpoints of other projects; merge feature stores",
    "inspect": "show what is in a feature store, a model or a prepared data set",
    "configs": "list, show or copy the configurations that come with coattn",
    "models": "list the models, or show the sizes of one",
    "fit": "train a model from a YAML configuration",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write a result file for the questions of a split",
    "experiment": "repeat training over seeds or folds, and compare configurations",
    "ask": "ask a model about an image",
    "certify": "add risk certificates and an index of the training images to a model",
    "explain-test": "measure how faithful explanations of a model are",
    "serve": "answer questions over HTTP",
    "demo": "show a web page that asks models about images",
    "export": "write a model as ONNX files that answer without torch",
    "push": "upload a model to the Hugging Face Hub",
    "score": "score a result file with the official metric",
    "browse": "write a web page of the answers in a result file",
}
_TRAINING = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see `exit_status`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_status(lambda: _dispatch(arguments, is_process=argv is None))


def _dispatch(arguments: list[str], *, is_process: bool) -> int:
    if not arguments:
        print(_help(), file=sys.stderr)
        return 2
    command, *rest = arguments
    if command in ("-h", "--help"):
        print(_help())
        return 0
    if command == "--version":
        print(f"coattn {__version__}")
        return 0
    if command not in COMMANDS:
        raise ValueError(f"there is no command {command!r}{did_you_mean(command, COMMANDS)}")
    # A garbage collection visits every object, and torch makes 180,000 that stay. None runs during the import, and the
    # later ones, at the end of the process too, leave these objects out. That saves a quarter of the time of `ask`.
    if is_process:
        gc.disable()
    module = importlib.import_module(f"coattn.cli.{'fit' if command in _TRAINING else command.replace('-', '_')}")
    if is_process:
        gc.freeze()
        gc.enable()
    if command in _TRAINING:
        return module.main(arguments)
    parser = ArgumentParser(prog=f"coattn {command}", description=module.DESCRIPTION)
    module.add_arguments(parser)
    parse = getattr(module, "parse", ArgumentParser.parse_args)
    return module.run(parse(parser, rest))


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return f"""usage: coattn COMMAND ...

Answers questions about images with co-attention.

commands:
{commands}

  coattn COMMAND --help   Show the arguments of a command, with an example.
  coattn --version        Show the version.
  COATTN_TRACEBACK=1      Set this in the environment to see the traceback of an error."""
