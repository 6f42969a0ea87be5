"""The grammar of map names, and that every model writes only names of it."""

from __future__ import annotations

import pytest
import torch

from coattn.models import GENERATORS, PRESETS
from coattn.nn.maps import MapName, name_maps, parse, prefix_maps

TINY = {"num_words": 9, "region_dim": 6, "dim": 16}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("layers.2.question_to_regions", ("layers.2", "question", "regions")),
        ("layers.11.regions_to_question", ("layers.11", "regions", "question")),
        ("question_to_question", ("", "question", "question")),
        ("glimpses.question_to_regions", ("glimpses", "question", "regions")),
        ("pooling.regions", ("pooling", None, "regions")),
        ("word.pooling.first.question", ("word.pooling.first", None, "question")),
        ("decoder.regions", ("decoder", "answer", "regions")),
        ("decoder.layers.0.question", ("decoder.layers.0", "answer", "question")),
    ],
)
def test_names_are_taken_apart_and_joined(name: str, parts: tuple[str, str | None, str]) -> None:
    assert parse(name) == parts
    assert str(MapName(*parts)) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", "pooling", "layers.0.words_to_regions", "layers.0.question_to_", "pooling.answer"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of an attention map"):
        parse(name)


def test_maps_that_were_not_computed_get_no_name() -> None:
    weights = torch.ones(1)
    assert name_maps("pooling", question=weights, regions=None) == {"pooling.question": weights}
    assert prefix_maps("layers.1", name_maps(regions_to_question=weights)) == {"layers.1.regions_to_question": weights}


@pytest.mark.parametrize("preset", [*PRESETS, *GENERATORS])
def test_every_model_names_its_maps_by_the_grammar(preset: str) -> None:
    sides = {"question": 3, "regions": 2, "answer": 5, None: 1}
    torch.manual_seed(0)
    sizes = TINY | ({"layers": ["parallel", "dense", "question_gate"]} if preset == "stack" else {})
    inputs = {
        "question": torch.tensor([[2, 3, 4]]),
        "regions": torch.randn(1, 2, 6),
        "question_mask": torch.ones(1, 3, dtype=torch.bool),
        "region_mask": torch.ones(1, 2, dtype=torch.bool),
        "boxes": torch.tensor([[[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]]]),
        "image_sizes": torch.tensor([[64.0, 48]]),
    }
    with torch.no_grad():
        if preset in GENERATORS:
            writer = GENERATORS[preset](num_answer_words=7, decoder="transformer", decoder_layers=2, **sizes).eval()
            output = writer.generate(**inputs, max_length=4, need_weights=True)
            sides["answer"] = output.tokens.shape[2]
        else:
            output = PRESETS[preset](num_answers=4, **sizes).eval()(**inputs, need_weights=True)
    assert output.maps
    for name, weights in output.maps.items():
        found = parse(name)
        assert str(found) == name
        assert weights.shape[2:] == (sides[found.rows], sides[found.columns])
