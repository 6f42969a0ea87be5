from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

pytest.importorskip("onnxscript", reason="the extra export is not installed")
runtime = pytest.importorskip("coattn.runtime")

from coattn.export.folder import export_folder  # noqa: E402


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of two small models by name."""
    folders = {}
    for name, dim in (("narrow", 8), ("wide", 16)):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("models")
        save_model(
            folder / "model",
            models.modular(
                num_words=4, region_dim=56, num_answers=2, dim=dim, num_layers=1, num_heads=2, question_encoder="none"
            ),
            answer_vocabulary=AnswerVocabulary(["yes", "no"]),
            question_vocabulary=Vocabulary(["is", "it"]),
            metric="exact_match",
            activation="softmax",
            extractor=Descriptor().record,
        )
        export_folder(folder / "model", folder / "exported")
        folders[name] = folder / "exported"
    return folders


def replace(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its recorded hash, so that the hash does not reveal it."""
    (folder / name).write_bytes(content)
    config = json.loads((folder / "runtime.json").read_text())
    config["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "runtime.json").write_text(json.dumps(config))


@pytest.mark.parametrize("file", ["image.onnx", "model.onnx"])
def test_a_graph_of_another_model_is_named(exports: dict[str, Path], tmp_path: Path, file: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exports["narrow"], folder)
    runtime.Predictor.load(folder)
    replace(folder, file, (exports["wide"] / file).read_bytes())
    message = r"model\.onnx: reads '\w+' of shape .*, which no other graph of this folder computes; .*: export again"
    with pytest.raises(ValueError, match=message):
        runtime.Predictor.load(folder)


def test_logits_of_another_number_of_answers_are_named(exports: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exports["narrow"], folder)
    answers = AnswerVocabulary(["yes", "no", "red"]).to_json()
    replace(folder, "answers.json", json.dumps(answers).encode())
    with pytest.raises(ValueError, match=r"model\.onnx: has no logits of 3 answers"):
        runtime.Predictor.load(folder)
