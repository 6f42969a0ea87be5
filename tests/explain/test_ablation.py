from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from coattn import models
from coattn.explain.ablation import Ablation
from coattn.explain.attribution import attribute
from coattn.metrics.calibration import confidences, log_odds
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.decoder import PAD
from coattn.text.reading import Word

SIZES = {"num_words": 9, "region_dim": 6, "dim": 16, "embedding_dim": 8}


def ablation(model: VQAModel | VQAGenerator, answer: list[int], **changes: object) -> Ablation:
    torch.manual_seed(1)
    settings = {
        "question": torch.tensor([2, 5, 3]),
        "regions": torch.randn(4, 6),
        "boxes": torch.rand(4, 4),
        "size": torch.tensor([[8.0, 8.0]]),
        "answer": torch.tensor(answer),
        "activation": "softmax",
        "temperature": 2.0,
    }
    return Ablation(model, **(settings | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> VQAModel:
    torch.manual_seed(0)
    model = models.modular(num_answers=5, num_layers=1, num_heads=2, question_encoder="lstm", **SIZES).eval()
    torch.nn.init.normal_(model.head.classify.weight)  # type: ignore[union-attr,arg-type]
    return model


def probability(model: VQAModel, asked: Ablation, regions: list[int], tokens: list[int]) -> float:
    """The probability of answer 2, from an input that holds only these regions and tokens."""
    with torch.inference_mode():
        logits = model(
            asked.question[tokens][None],
            asked.regions[regions][None],
            question_mask=torch.ones(1, len(tokens), dtype=torch.bool),
            region_mask=torch.ones(1, len(regions), dtype=torch.bool),
        ).logits[0]
    return float((logits / 2).softmax(0)[2])


def test_removed_parts_are_as_if_they_had_never_been_there(model: VQAModel) -> None:
    asked = ablation(model, [2])
    kept = np.array([[True, False, True, False], [True] * 4])
    expected = [probability(model, asked, [0, 2], [0, 1, 2]), probability(model, asked, [0, 1, 2, 3], [0, 1, 2])]
    np.testing.assert_allclose(asked.without_regions(kept), expected, atol=1e-6)
    words = np.array([[True, False, True], [False, True, False]])
    expected = [probability(model, asked, [0, 1, 2, 3], [0, 2]), probability(model, asked, [0, 1, 2, 3], [1])]
    np.testing.assert_allclose(asked.without_words(words), expected, atol=1e-6)
    assert np.isfinite(asked.without_regions(np.zeros((1, 4), bool))).all()
    assert np.isfinite(asked.without_words(np.zeros((1, 3), bool))).all()


def test_a_filler_replaces_removed_regions(model: VQAModel) -> None:
    filler = torch.full((6,), 0.5)
    asked = ablation(model, [2], filler=filler)
    regions = asked.regions.clone()
    regions[1] = filler
    changed = ablation(model, [2], regions=regions)
    kept = np.array([[True, False, True, True]])
    np.testing.assert_allclose(asked.without_regions(kept), changed.without_regions(kept | True), atol=1e-5)


def test_a_written_answer_has_the_confidence_that_is_shown() -> None:
    torch.manual_seed(0)
    model = models.generator(num_answer_words=7, num_layers=1, num_heads=2, **SIZES).eval()
    asked = ablation(model, [], activation="sigmoid")
    found = model.generate(
        asked.question[None],
        asked.regions[None],
        question_mask=torch.ones(1, 3, dtype=torch.bool),
        region_mask=torch.ones(1, 4, dtype=torch.bool),
        boxes=None if asked.boxes is None else asked.boxes[None],
    )
    answer = found.tokens[0, 0]
    assert len(answer) > 1
    written = dataclasses.replace(asked, answer=answer[answer != PAD])
    confidence = confidences(log_odds(found.scores), asked.temperature, "sigmoid")[0, 0]
    assert written.without_regions(np.ones((1, 4), bool))[0] == pytest.approx(float(confidence), rel=1e-3)


def test_attribution_by_word_and_region(model: VQAModel) -> None:
    asked = ablation(model, [2])
    words = (Word("[CLS]", (0,), special=True), Word("redder", (1, 2)))
    found = attribute("dependence", asked, "red", words, {})
    assert found.regions.shape == (4,)
    assert found.words[0] == 0  # a special token is never removed
    everything, only_special = asked.without_words(np.array([[True] * 3, [True, False, False]]))
    assert found.words[1] == pytest.approx(everything - only_special, abs=1e-6)
    assert found.num_passes == 2**4 + 2**1
    with pytest.raises(ValueError, match="no attention map over the regions"):
        attribute("attention", asked, "red", words, {})


def test_many_regions_share_the_value_of_their_group(model: VQAModel) -> None:
    torch.manual_seed(2)
    corners = torch.rand(100, 2) * 0.9
    asked = ablation(model, [2], regions=torch.randn(100, 6), boxes=torch.cat((corners, corners + 0.1), 1))
    found = attribute("dependence", asked, "red", (Word("red", (0, 1, 2)),), {})
    assert found.note == "100 regions in 64 groups"
    assert len(np.unique(found.regions)) <= 64
