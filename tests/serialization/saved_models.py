"""Small models, and how tests save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from coattn import models
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.layers import lengths_to_mask
from coattn.serialization.directory import save_model
from coattn.serialization.files import CONFIG
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

WORDS = Vocabulary(["what", "is", "it", "red"])
ANSWERS = AnswerVocabulary(["yes", "no", "2"])
RECORD = {"name": "descriptor", "settings": {"grid": [4, 4]}, "weights": None, "versions": {}}


SMALL: dict[str, dict[str, Any]] = {
    "dcn": {"dim": 16, "num_layers": 2, "recurrent_dim": 8},
    "hiecoatt_parallel": {"dim": 16, "joint_dim": 16},
    "hiecoatt_alternating": {"dim": 16, "joint_dim": 16},
    "mcan_small": {"dim": 16, "ffn_dim": 32, "joint_dim": 16, "num_heads": 2},
    "mcan_large": {"dim": 16, "ffn_dim": 32, "joint_dim": 16, "num_heads": 2},
    "stack": {"dim": 16, "layers": list(models.LAYERS)},
}


def make(preset: str = "modular", **inputs: int) -> VQAModel:
    inputs = inputs or {"num_words": len(WORDS)}
    return models.PRESETS[preset](
        region_dim=6, num_answers=len(ANSWERS), **inputs, **SMALL.get(preset, {"dim": 16, "embedding_dim": 8})
    )


def save(folder: Path, model: VQAModel | None = None, **changes: Any) -> Path:
    settings: dict[str, Any] = {"question_vocabulary": WORDS, "temperature": 1.5, "card": "# A model"} | changes
    model = model or make()
    save_model(
        folder,
        model,
        answer_vocabulary=ANSWERS,
        metric="exact_match",
        activation="softmax",
        extractor=RECORD,
        **settings,
    )
    return folder


def logits(model: VQAModel) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    words = model.question_encoder.num_words
    question = (
        torch.randint(words, (2, 5), generator=random) if words else torch.rand(2, 5, 8, generator=random)  # type: ignore[call-overload]
    )
    with torch.inference_mode():
        return model(
            question,
            torch.rand(2, 7, 6, generator=random),
            question_mask=lengths_to_mask(torch.tensor([5, 3]), 5),
            region_mask=lengths_to_mask(torch.tensor([4, 7]), 7),
            boxes=torch.rand(2, 7, 4, generator=random),
            image_sizes=torch.ones(2, 2),
        ).logits


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / CONFIG
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


ANSWER_WORDS = AnswerWords(["red", "blue", "chair"])


def writer(**sizes: Any) -> VQAGenerator:
    return models.generator(region_dim=6, num_answer_words=len(ANSWER_WORDS), num_words=len(WORDS), dim=16, **sizes)


def save_writer(folder: Path, model: VQAGenerator, answers: Any = ANSWER_WORDS) -> None:
    save_model(
        folder,
        model,
        answer_vocabulary=answers,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="sigmoid",
        extractor=RECORD,
    )
