"""The help of every command: each argument is explained by complete sentences."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from coattn.cli import COMMANDS, fit
from coattn.cli.arguments import ArgumentParser

PARSED_HERE = [name for name in COMMANDS if name not in ("fit", "validate", "test", "predict")]  # Lightning's are not


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                yield from parsers_of(inner)


def helps_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Every argument of a parser and of its subparsers, with its help as people read it."""
    for inner in parsers_of(parser):
        for action in inner._actions:
            name = (action.option_strings or [action.metavar or action.dest])[0]
            if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                yield f"{inner.prog} {name}", (action.help or "") % {"default": action.default, "prog": inner.prog}


def unclear(text: str) -> bool:
    """Whether a help does not begin with a capital letter, or does not end with a period."""
    return not text or text[0].islower() or not text.rstrip(")").endswith(".")


@pytest.mark.parametrize("command", PARSED_HERE)
def test_every_argument_is_explained_by_sentences(command: str) -> None:
    module = importlib.import_module(f"coattn.cli.{command.replace('-', '_')}")
    parser = ArgumentParser(prog=f"coattn {command}", description=module.DESCRIPTION)
    module.add_arguments(parser)
    assert {name: text for name, text in helps_of(parser) if unclear(text)} == {}


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_settings_are_explained_by_sentences(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from coattn.training.cli import commands

    parsers = {}

    def stop(line: commands._CommandLine, parser: object, arguments: object) -> None:
        parsers.update(line._subcommand_parsers)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands._CommandLine, "parse_arguments", stop)
    with pytest.raises(KeyboardInterrupt):
        commands._CommandLine([command], hints=False)
    ours = {
        action.dest: str(action.help)
        for action in parsers[command]._actions
        if action.dest.split(".")[0] not in ("help", "config", "seed_everything", "trainer")
    }
    assert {"data.folder", "model.preset", "ckpt_path"} <= ours.keys()
    assert {name: text for name, text in ours.items() if unclear(text) and text != argparse.SUPPRESS} == {}


@pytest.mark.parametrize("more", ["", "from torch._dynamo import explain"])
def test_help_imports_lightning_quickly_or_as_always(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text(
        "from importlib import metadata\nfrom torch._dynamo import OptimizedModule, disable\n"
        f"try:\n    hidden = not metadata.version('scipy')\nexcept ImportError:\n    hidden = True\n{more}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("lightning", "torch._dynamo", "scipy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    version = metadata.version
    fit._import_lightning_for_help()
    assert ("lightning" in sys.modules) == (not more)
    assert more or sys.modules["lightning"].hidden
    assert "torch._dynamo" not in sys.modules
    assert metadata.version is version
    monkeypatch.delitem(sys.modules, "lightning", raising=False)
