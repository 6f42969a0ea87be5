"""A small model to serve, a photo, and a request about it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

QUESTION = "what color is the circle?"


def save_small_model(path: Path) -> Path:
    """Write a model directory."""
    torch.manual_seed(3)
    words = Vocabulary(["what", "color", "is", "the", "circle"])
    save_model(
        path,
        models.modular(num_words=len(words), region_dim=56, num_answers=4, dim=16, embedding_dim=8),
        answer_vocabulary=AnswerVocabulary(["yes", "no", "red", "blue"]),
        question_vocabulary=words,
        metric="exact_match",
        activation="softmax",
        extractor=Descriptor().record,
    )
    return path


def png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """A photo of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def body(**changes: Any) -> dict[str, Any]:
    """A request about the photo, with some fields changed."""
    return {"image": base64.b64encode(png()).decode(), "questions": [QUESTION]} | changes
