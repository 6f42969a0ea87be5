"""Answers of models that read questions through a pretrained text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_predictor import ANSWERS, RECORD, photo

from coattn import models
from coattn.nn import VQAModel
from coattn.predictor import Predictor
from coattn.serialization.directory import save_model


@pytest.fixture(scope="module")
def encoder(real_text_encoder: Path) -> Any:
    pytest.importorskip("transformers")
    from coattn.text.encoders import TextEncoder

    return TextEncoder.load(real_text_encoder)


def save(folder: Path, encoder: Any, record: dict[str, Any]) -> VQAModel:
    """A model on this encoder, saved as `folder`/model with this record of it."""
    torch.manual_seed(0)
    model = models.parallel(region_dim=56, num_answers=4, question_dim=encoder.dim, dim=16, embedding_dim=8)
    encoder.save(folder / "encoder")
    save_model(
        folder / "model",
        model,
        answer_vocabulary=ANSWERS,
        metric="exact_match",
        activation="sigmoid",
        extractor=RECORD,
        text_encoder=record,
        text_encoder_folder=folder / "encoder",
    )
    return model


def test_a_model_on_a_text_encoder_runs_it_live(encoder: Any, tmp_path: Path) -> None:
    model = save(tmp_path, encoder, encoder.record)
    predictor = Predictor.load(tmp_path / "model")
    image = predictor.encode(photo())
    question = "what colour is the circle?"
    rows = encoder.encode([question])[0]
    with torch.inference_mode():
        logits = model.eval()(
            rows[None],
            image.features[None],
            question_mask=torch.ones(1, len(rows), dtype=torch.bool),
            region_mask=torch.ones(1, 16, dtype=torch.bool),
            boxes=image.boxes[None],
            image_sizes=torch.tensor([[80.0, 60.0]]),
        ).logits[0]
    answers = {answer.text: answer.confidence for answer in predictor.ask(image, question)}
    np.testing.assert_allclose([answers[text] for text in ANSWERS.answers], logits.sigmoid(), atol=1e-5)
    explanation = predictor.maps(image, question)
    assert len(explanation.tokens) == len(rows)
    assert "circle" in explanation.tokens
    with pytest.raises(ValueError, match="question"):
        predictor.ask(image, "?")


def test_another_text_encoder_is_refused(encoder: Any, tmp_path: Path) -> None:
    save(tmp_path, encoder, encoder.record | {"weights": {"id": "minilm", "sha256": "0" * 64}})
    with pytest.raises(ValueError, match=r"not the text encoder that .* was trained with"):
        Predictor.load(tmp_path / "model").ask(photo(), "is it red")
