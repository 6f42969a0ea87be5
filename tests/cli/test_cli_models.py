from __future__ import annotations

import inspect

import pytest

from coattn.cli import main
from coattn.cli.models import argument_meanings
from coattn.models import FROM_DATA, GENERATORS, PRESETS

ALL = {**PRESETS, **GENERATORS}


def test_every_preset_is_listed_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ALL)
    assert all(line.endswith(".") for line in lines)


def test_the_sizes_of_a_preset_have_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mcan_large"]) == 0
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()[3:-3]}
    assert rows["dim"][0] == "1024"  # of the large model, not of the function that both call
    assert rows["num_heads"][0] == "8"
    assert rows["geometry_dim"][0] == "null"
    assert "width" in rows["dim"][1]
    assert not rows.keys() & set(FROM_DATA)


@pytest.mark.parametrize("name", ALL)
def test_every_size_has_a_meaning(name: str) -> None:
    sizes = set(inspect.signature(ALL[name]).parameters) - set(FROM_DATA)
    meanings = argument_meanings(ALL[name], ALL)
    assert {size for size in sizes if not meanings.get(size)} == set()


def test_an_unknown_preset_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mcan_smal"]) == 2
    assert "there is no preset 'mcan_smal'; did you mean 'mcan_small'?" in capsys.readouterr().err
