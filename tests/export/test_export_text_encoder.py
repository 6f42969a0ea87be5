"""Exports of models that read questions with a pretrained text encoder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary

pytest.importorskip("onnxscript", reason="the extra export is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
runtime = pytest.importorskip("coattn.runtime")

from coattn.export.folder import export_folder  # noqa: E402
from coattn.export.text_encoder import write_tokenizer  # noqa: E402
from coattn.predictor import Predictor  # noqa: E402
from coattn.runtime.text import QuestionTokenizer  # noqa: E402
from coattn.text.encoders import FinetunedQuestionEncoder, TextEncoder  # noqa: E402

ANSWERS = AnswerVocabulary(["yes", "no", "red", "blue"])
QUESTIONS = ("what is it ?", "is the “red” one red", "is it ?")
MAKE = Callable[..., Path]
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 40},
    "distilbert": {"hidden_dim": 8},
    "mpnet": {},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta-v2": {},
    "modernbert": {"layer_types": ["full_attention"] * 2},
    "t5": {"d_ff": 8, "d_kv": 4},
}


def save(folder: Path, encoder_folder: Path, *, frozen: bool) -> Path:
    torch.manual_seed(4)
    encoder = TextEncoder.load(encoder_folder)
    sizes: dict[str, Any] = {"region_dim": 56, "num_answers": len(ANSWERS), "dim": 16, "embedding_dim": 8}
    model = models.alternating(question_dim=encoder.dim, **sizes)
    settings: dict[str, Any] = {"text_encoder": encoder.record, "text_encoder_folder": encoder_folder}
    if not frozen:
        model.question_encoder = FinetunedQuestionEncoder.pretrained(encoder_folder, model.question_encoder)
        settings = {"question_vocabulary": PretrainedTokenizer.load(encoder_folder), "text_encoder": encoder.record}
    save_model(
        folder,
        model.eval(),
        answer_vocabulary=ANSWERS,
        metric="exact_match",
        activation="softmax",
        max_tokens=8,
        extractor=Descriptor().record,
        **settings,
    )
    return folder


def check(folder: Path, out: Path) -> None:
    assert export_folder(folder, out).difference < 1e-4
    ours, theirs = Predictor.load(folder), runtime.Predictor.load(out)
    images = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)) for seed in range(2)]
    pairs = [(image, question) for image in images for question in QUESTIONS]
    for expected, found in zip(ours.ask_many(pairs), theirs.ask_many(pairs), strict=True):
        assert [answer.text for answer in found] == [answer.text for answer in expected]
        assert [answer.confidence for answer in found] == pytest.approx([a.confidence for a in expected], abs=1e-4)
        assert found.unknown_words == ()


def test_a_frozen_text_encoder_is_exported(make_text_encoder: MAKE, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make_text_encoder(tmp_path / "bert"), frozen=True)
    check(folder, tmp_path / "out")
    assert {"text_encoder.onnx", "tokenizer.json"} < {path.name for path in (tmp_path / "out").iterdir()}
    predictor = runtime.Predictor.load(tmp_path / "out")
    photo = Image.new("RGB", (80, 60))
    with pytest.warns(UserWarning, match="question cut to 32 tokens, as in training"):
        predictor.ask(photo, "is it red " * 20)
    with pytest.raises(ValueError, match="has no word in it"):
        predictor.ask(photo, "?!")

    photo.save(tmp_path / "photo.png")
    blocked = "('torch', 'h5py', 'transformers', 'lightning', 'matplotlib')"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));"
        "import runpy; sys.argv[1:] = sys.argv[2:]; runpy.run_module('coattn.runtime', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "-", "ask", str(tmp_path / "out"), str(tmp_path / "photo.png"), QUESTIONS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert predictor.ask(photo, QUESTIONS[0])[0].text in done.stdout

    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: damaged or replaced"):
        runtime.Predictor.load(tmp_path / "out")


@pytest.mark.parametrize("max_tokens", [None, 6])
def test_the_tokenizer_is_that_of_the_model(real_text_encoder: Path, tmp_path: Path, max_tokens: int | None) -> None:
    tokenizer = PretrainedTokenizer.load(real_text_encoder)
    write_tokenizer(tokenizer, max_tokens, tmp_path)
    written = QuestionTokenizer(tmp_path / "tokenizer.json")
    for question in (
        "What’s on the table?",
        "is the Zebra-striped umbrella 3 m wide",
        "où est-ce ?",
        "[CLS] [MASK] is it",
    ):
        assert written.encode(question) == tokenizer.encode(question, max_tokens=max_tokens)
        assert written.is_cut(question) == (max_tokens is not None and len(tokenizer.encode(question)) > max_tokens)
    assert written.encode("?") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_trained_text_encoder_of_every_family_is_exported(kind: str, make_text_encoder: MAKE, tmp_path: Path) -> None:
    encoder = make_text_encoder(tmp_path / kind, kind, **FAMILIES[kind])
    check(save(tmp_path / "model", encoder, frozen=False), tmp_path / "out")


@pytest.mark.slow
def test_a_real_text_encoder_is_exported(real_text_encoder: Path, tmp_path: Path) -> None:
    check(save(tmp_path / "model", real_text_encoder, frozen=True), tmp_path / "out")
