"""Padding as published code saw it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from coattn import models
from coattn.models.original_padding import Inputs, OriginalPadding
from coattn.nn import VQAModel
from coattn.nn.layers import lengths_to_mask

B, T, R, D = 3, 5, 4, 6


def original(**settings: Any) -> OriginalPadding:
    model = models.butd(num_words=10, region_dim=D, num_answers=3, dim=4, embedding_dim=4, classifier_dim=4)
    return OriginalPadding(model, **settings)


def inputs() -> Inputs:
    torch.manual_seed(0)
    question_mask = lengths_to_mask(torch.tensor([5, 2, 3]), T)
    region_mask = lengths_to_mask(torch.tensor([4, 1, 2]), R)
    question = torch.randint(1, 9, (B, T)) * question_mask
    regions = torch.randn(B, R, D) * region_mask[:, :, None]
    return Inputs(question, regions, question_mask, region_mask, torch.rand(B, R, 4) * region_mask[:, :, None])


def test_pads_and_cuts_to_the_sizes_of_the_original() -> None:
    given = inputs()
    longer = original(num_tokens=7, num_regions=6).pad(given)
    assert longer.question.shape == (B, 7)
    assert longer.regions.shape == (B, 6, D)
    assert longer.boxes is not None
    assert longer.boxes.shape == (B, 6, 4)
    assert torch.equal(longer.question_mask.sum(1), given.question_mask.sum(1))
    shorter = original(num_tokens=3, num_regions=2).pad(given)
    assert torch.equal(shorter.question, given.question[:, :3])
    assert torch.equal(shorter.regions, given.regions[:, :2])


def test_shows_padding_only_where_the_original_has_no_mask() -> None:
    given = inputs()
    shown = original(question=True).pad(given)
    assert shown.question_mask.all()
    assert torch.equal(shown.region_mask, given.region_mask)
    assert original(regions=True).pad(given).region_mask.all()


def test_encoders_without_masks_are_shown_all_places_and_attention_is_not() -> None:
    given = inputs()
    seen: dict[str, Tensor] = {}
    padding = original(encoders=True)
    padding.question_encoder.register_forward_pre_hook(lambda _, args: seen.update(encoder=args[1]))
    padding.coattention.register_forward_pre_hook(lambda _, args: seen.update(attention=args[2]))
    question, regions, question_mask, region_mask, _ = given
    padding(question, regions, question_mask=question_mask, region_mask=region_mask)
    assert seen["encoder"].all()
    assert torch.equal(seen["attention"], question_mask)


def test_the_wrapper_has_the_parts_and_the_names_of_its_model() -> None:
    padding = original(question=True)
    assert isinstance(padding, VQAModel)
    assert padding.state_dict().keys() == padding.model.state_dict().keys()
    assert padding.model.head is padding.head
    given = inputs()
    masks = {"question_mask": given.question_mask, "region_mask": given.region_mask}
    repaired = padding.eval().model.eval()(given.question, given.regions, **masks).logits
    assert not torch.allclose(padding(given.question, given.regions, **masks).logits, repaired)
    masks["question_mask"] = torch.ones_like(given.question_mask)
    unmasked = padding.model(given.question, given.regions, **masks).logits
    torch.testing.assert_close(padding(given.question, given.regions, **masks).logits, unmasked)


def test_moves_padding_to_the_front_once() -> None:
    given = inputs()
    padding = original(front=True, num_tokens=6)
    moved = padding.pad(given)
    for row, mask, old, old_mask in zip(
        moved.question, moved.question_mask, given.question, given.question_mask, strict=True
    ):
        assert mask.tolist() == sorted(mask.tolist())
        assert torch.equal(row[mask], old[old_mask])
    assert torch.equal(original(front=True).pad(moved).question, moved.question)


def test_padding_gets_the_id_that_the_original_has_there() -> None:
    given = inputs()
    padded = original(question=True, front=True, num_tokens=7, padding_id=9).pad(given)
    assert padded.question_mask.all()
    for row, old, mask in zip(padded.question, given.question, given.question_mask, strict=True):
        assert row.tolist() == [9] * (7 - int(mask.sum())) + old[mask].tolist()


def test_an_empty_row_is_shown_or_becomes_nan() -> None:
    given = inputs()
    region_mask = given.region_mask.clone()
    region_mask[1] = False
    empty = given._replace(region_mask=region_mask, regions=given.regions * region_mask[:, :, None])
    assert original().pad(empty).region_mask[1].all()
    regions = original(empty="nan").pad(empty).regions
    assert regions[1].isnan().all()
    assert not regions[[0, 2]].isnan().any()


@pytest.mark.parametrize("front", [False, True])
def test_maps_come_back_in_the_places_that_were_given(front: bool) -> None:
    given = inputs()
    padding = original(front=front, num_tokens=7, num_regions=6)
    padded = padding.pad(given)
    # A map whose weights say between which word and which region they are.
    words = padded.question.float()[:, None, :, None]
    seen = padded.regions[:, :, 0][:, None, None, :]
    maps = padding.unpad_maps({"layers.0.question_to_regions": words * seen, "pooling.question": words.mT}, given)
    expected = given.question.float()[:, None, :, None] * given.regions[:, :, 0][:, None, None, :]
    torch.testing.assert_close(maps["layers.0.question_to_regions"], expected)
    torch.testing.assert_close(maps["pooling.question"], given.question.float()[:, None, None, :])


def test_places_that_were_cut_off_get_zeros() -> None:
    given = inputs()
    padding = original(num_regions=2)
    weights = torch.ones(B, 1, 1, 2)
    assert padding.unpad_maps({"pooling.regions": weights}, given)["pooling.regions"][0, 0, 0].tolist() == [1, 1, 0, 0]


def test_a_faithful_model_attends_to_the_padding_of_an_empty_image_evenly() -> None:
    torch.manual_seed(0)
    sizes = {"region_dim": D, "num_answers": 3, "num_words": 9, "num_layers": 1, "dim": 8, "ffn_dim": 8}
    model = models.mcan_small(**sizes, faithful=True, padded_regions=6).eval()
    given = inputs()
    masks = {"question_mask": given.question_mask, "region_mask": torch.zeros_like(given.region_mask)}
    out = model(given.question, torch.zeros_like(given.regions), **masks, need_weights=True)
    torch.testing.assert_close(out.maps["pooling.regions"], torch.full((B, 1, 1, R), 1 / 6))


def test_refuses_an_unknown_treatment_of_empty_rows() -> None:
    with pytest.raises(ValueError, match="'zero'"):
        original(empty="zero")
