"""Model directories that are damaged, foreign or hostile."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import edit_config, make, save

from coattn.serialization.directory import load
from coattn.serialization.files import CONFIG, WEIGHTS
from coattn.serialization.registry import BRICKS
from coattn.text.vocabulary import Vocabulary


def test_vocabularies_must_be_those_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary of 3 ids, but the model reads 6"):
        save(tmp_path / "model", question_vocabulary=Vocabulary(["what"]))
    with pytest.raises(ValueError, match="None ids, but the model reads 6"):
        save(tmp_path / "model", question_vocabulary=None)
    assert os.listdir(tmp_path) == []


def test_a_foreign_module_cannot_be_saved(tmp_path: Path) -> None:
    model = make()
    model.head = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Linear is not a brick .*add .*registry\.BRICKS"):
        save(tmp_path / "model", model)


class OwnHead(torch.nn.Module):
    """A head of a user with few annotations; `keep` says whether it keeps its second argument, as a brick must."""

    def __init__(self, num_answers, width=3, *, sizes: tuple = (1, 2), keep=True):  # type: ignore[no-untyped-def]
        super().__init__()
        self.num_answers, self.sizes, self.keep = num_answers, sizes, keep
        if keep:
            self.width = width


def test_a_class_of_the_user_is_saved_and_loaded_once_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    model.head = OwnHead(model.head.num_answers, width=4)
    monkeypatch.setitem(BRICKS, "OwnHead", OwnHead)
    folder = save(tmp_path / "model", model)
    head = load(folder).head
    assert isinstance(head, OwnHead)
    assert head.width == 4
    monkeypatch.delitem(BRICKS, "OwnHead")
    with pytest.raises(ValueError, match=r"'OwnHead' is not one of coattn's; add .*registry\.BRICKS"):
        load(folder)


def test_a_class_that_forgets_an_argument_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    model.head = OwnHead(model.head.num_answers, keep=False)
    monkeypatch.setitem(BRICKS, "OwnHead", OwnHead)
    with pytest.raises(ValueError, match="OwnHead does not keep its constructor argument 'width'"):
        save(tmp_path / "model", model)


def test_every_wrong_tensor_is_listed(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    del tensors["head.classify.bias"]
    tensors["evil"] = torch.zeros(2)
    tensors["head.classify.weight"] = tensors["head.classify.weight"][:2]
    tensors["region_encoder.features.bias"] = tensors["region_encoder.features.bias"].double()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="does not fit") as error:
        load(folder)
    for problem in (
        str(folder / WEIGHTS),
        "missing head.classify.bias float32 (3,)",
        "unexpected evil float32 (2,)",
        "head.classify.weight is float32 (2,",
        "region_encoder.features.bias is float64 (",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["model"]["head"].update({"class": "os.system"}),
            r"model\.head: the class 'os\.system' is not one",
        ),
        (lambda c: c["model"]["head"].pop("class"), r"model\.head: the class None"),
        (lambda c: c.update(model={"class": "RegionEncoder", "region_dim": 6}), r"RegionEncoder\): lacks dim"),
        (lambda c: c.update(model=c["model"]["region_encoder"]), "not a VQAModel"),
        (lambda c: c["model"]["head"].pop("num_answers"), r"model\.head \(ClassifierHead\): lacks num_answers"),
        (lambda c: c["model"]["head"].update(colour="red"), "has the unknown colour"),
        (lambda c: c["model"]["head"].update(num_answers="3"), r"model\.head\.num_answers: '3' is not of the type"),
        (lambda c: c["model"]["head"].update(num_answers=True), r"model\.head\.num_answers: True is not of the type"),
        (lambda c: c["model"].update(head=None), r"model\.head: None is not of the type"),
        (lambda c: c["model"]["head"].update(fusion="magic"), r"ClassifierHead\): fusion must be one of"),
        (
            lambda c: c["model"]["coattention"]["layers"][0].update(num_heads=0),
            r"layers\[0\] \(QuestionSelfAttention\)",
        ),
        (lambda c: c["model"]["coattention"].update(layers=[]), "at least one layer"),
        (lambda c: c["model"]["coattention"].update(layers=[c["model"]["head"]]), r"coattention\.layers: "),
        (lambda c: c["model"]["head"].update(num_answers=-1), "ClassifierHead"),
        (
            lambda c: c["model"]["head"].update(num_answers=10**13),
            r"num_answers: 10000000000000 exceeds the count of all numbers",
        ),
        (lambda c: c["model"]["head"].update(num_answers=1000), r"head\.classify\.weight is .* the config needs"),
        (lambda c: c.pop("metric"), "lacks metric"),
        (lambda c: c.update(hook="x"), "unknown hook"),
        (lambda c: c.update(temperature="hot"), "temperature: 'hot' is not of type float"),
        (lambda c: c.update(max_tokens=-1), "max_tokens: -1 is not a positive number"),
        (lambda c: c.update(temperature=float("nan")), "temperature: nan is not a positive number"),
        (lambda c: c.update(activation="relu"), "activation: 'relu' is not of type Literal\\['sigmoid', 'softmax'\\]"),
        (lambda c: c["extractor"].pop("weights"), "extractor: lacks weights"),
        (lambda c: c["extractor"].update(name=[None]), r"extractor\.name: \[None\] is not of type"),
        (lambda c: c["extractor"].update(weights={"id": "x"}), r'extractor\.weights: has no text under "sha256"'),
        (lambda c: c["extractor"]["settings"].update(size=[64]), r"size: \[64\] is not a width and a height"),
        (lambda c: c["extractor"]["settings"].update(size=[60000, 64]), "of 1 to 8192 pixels"),
        (lambda c: c["extractor"]["settings"].update(size=[10**30, 64]), "of 1 to 8192 pixels"),
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(format="zip"), "not a model of coattn"),
    ],
)
def test_a_wrong_config_is_refused_by_file_and_key(edit: Callable[[dict], Any], message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    edit_config(folder, edit)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value)


def test_a_giant_of_a_config_costs_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    num_values = sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    layer = json.loads((folder / CONFIG).read_text())["model"]["coattention"]["layers"][0]
    giant = layer | {"ffn_dim": num_values}  # gigabytes, were they allocated
    edit_config(folder, lambda config: config["model"]["coattention"].update(layers=[giant] * 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="does not fit"):
        load(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB, on macOS bytes
    assert grown < 2**30 // (1 if sys.platform == "darwin" else 1024)


def test_a_flipped_bit_in_the_weights_is_noticed_and_a_directory_without_a_hash_loads(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged: its SHA-256"):
        load(folder)
    edit_config(folder, lambda config: config.pop("sha256"))
    load(folder)


@pytest.mark.parametrize("name", ["answers.json", "question_vocabulary.json"])
def test_half_a_surrogate_pair_is_refused(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("yes", r"\ud800").replace("what", r"\ud800"))
    with pytest.raises(ValueError, match=f"{name}: half of a surrogate pair"):
        load(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "answers.json", "question_vocabulary.json"])
def test_damaged_and_missing_files_are_named(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load(folder)
    os.mkfifo(folder / name)  # waits for ever if it is read
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("answers.json", ["yes"], "1 answers, but the model scores 3"),
        ("answers.json", ["yes", "yes", "no"], "'yes' twice"),
        ("answers.json", {"yes": 0}, "list of texts"),
        ("question_vocabulary.json", ["what"], "3 ids, but the model reads 6"),
    ],
)
def test_foreign_vocabularies_are_refused(name: str, content: Any, message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_bottomless_config_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / CONFIG).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=CONFIG):
        load(folder)


def test_not_a_model_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a model directory"):
        load(tmp_path)
