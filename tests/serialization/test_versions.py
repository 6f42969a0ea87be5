"""Model directories and checkpoints that the first version of the format wrote (commit 7b3e866), and their parameters.

`golden/model_version_1` holds three tiny model directories, their outputs, and for every preset the parameters in their
order and the random draws that initialize them, all computed by that commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from coattn import models
from coattn.nn import VQAGenerator, VQAModel
from coattn.serialization.directory import load_directory, save_model
from coattn.serialization.files import CONFIG, WEIGHTS
from coattn.serialization.versions import VERSION, rename_arguments, rename_parameters

OLD = Path(__file__).parents[1] / "golden" / "model_version_1"
OUTPUTS = json.loads((OLD / "outputs.json").read_text())
PARAMETERS = json.loads((OLD / "parameters.json").read_text())
RENAMED = {"query", "key", "value", "read_itself", "read_question", "read_regions", "look", "fix", "write", "normalise"}


def builder(name: str) -> Callable[..., VQAModel | VQAGenerator]:
    return models.GENERATORS["generator"] if name.startswith("generator") else models.PRESETS[name]


@pytest.mark.parametrize("name", ["plain", "padding", "generator"])
def test_an_old_directory_answers_as_it_did(name: str, tmp_path: Path) -> None:
    inputs = {key: torch.tensor(value) for key, value in OUTPUTS["inputs"].items()}
    expected = OUTPUTS["expected"][name]
    directory = load_directory(OLD / name)
    model = directory.model
    assert isinstance(model, models.OriginalPadding) == (name == "padding")
    with torch.no_grad():
        if isinstance(model, VQAGenerator):
            found = model.generate(**inputs, max_length=4, need_weights=True)
            assert found.tokens.tolist() == expected["tokens"]
            torch.testing.assert_close(found.scores, torch.tensor(expected["scores"]))
            assert sorted(found.maps) == expected["maps"]
        else:
            output = model(**inputs, need_weights=True)
            torch.testing.assert_close(output.logits, torch.tensor(expected["logits"]))
            assert sorted(output.maps) == expected["names"]
            for key, weights in expected["maps"].items():
                torch.testing.assert_close(output.maps[key], torch.tensor(weights))
    # Saved again it has the names of today.
    save_model(
        tmp_path / "model",
        model,
        answer_vocabulary=directory.answer_vocabulary,
        question_vocabulary=directory.question_vocabulary,
        metric=directory.metric,
        activation=directory.activation,
        extractor=directory.extractor,
    )
    assert json.loads((tmp_path / "model" / CONFIG).read_text())["version"] == VERSION
    names = load_file(tmp_path / "model" / WEIGHTS)
    assert not {part for key in names for part in key.split(".")} & RENAMED
    for key, value in load_directory(tmp_path / "model").model.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


class Draws(TorchDispatchMode):
    """Records every draw of random numbers: the distribution and the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[list[Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::").rstrip("_")
        if name in ("uniform", "normal", "randn"):
            self.draws.append([name, *(args[0].shape if isinstance(args[0], torch.Tensor) else args[0])])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_their_initialization_keep_their_order(name: str) -> None:
    old = PARAMETERS[name]
    with Draws() as mode:
        model = builder(name)(**rename_arguments(old["sizes"]))
    found = [[key, list(value.shape)] for key, value in model.named_parameters()]
    assert found == [
        [key, shape]
        for key, shape in zip(
            rename_parameters(dict(old["parameters"])), [shape for _, shape in old["parameters"]], strict=True
        )
    ]
    assert mode.draws == old["draws"]


def test_names_of_a_training_checkpoint_are_updated_once() -> None:
    old = {f"model.{key}": None for key, _ in PARAMETERS["generator_transformer"]["parameters"]}
    new = rename_parameters(old)
    model = builder("generator")(**PARAMETERS["generator_transformer"]["sizes"])
    assert list(new) == [f"model.{key}" for key, _ in model.named_parameters()]
    assert rename_parameters(new) == new


def test_names_inside_a_text_encoder_stay() -> None:
    name = "model.question_encoder.encoder.layer.0.attention.query.weight"
    assert list(rename_parameters({name: None})) == [name]


def test_renamed_layers_are_found() -> None:
    old = {"class": "CoAttentionStack", "layers": [{"class": "RegionGuidedAttention"}]}
    assert rename_arguments(old) == {"class": "CoAttentionStack", "layers": [{"class": "SelfGuidedAttention"}]}
    assert rename_arguments({"layers": ["region_guided", "region_question"]}) == {"layers": ["self_guided", "guided"]}
