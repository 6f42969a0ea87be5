"""hengyuan-hu's bottom-up top-down attention against what its own code gave, faithful and repaired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity import (
    PRECISIONS,
    check_gradients,
    check_ignores_padding,
    check_logits,
    check_round_trip,
    emptied,
    load_golden,
    masks,
    part,
    row,
)
from torch import Tensor
from torch.nn import functional as F

from coattn import models
from coattn.nn import VQAModel
from coattn.weights import from_hengyuan, hengyuan_names

NAMES = ["hengyuan_butd_baseline0", "hengyuan_butd_baseline0_newatt"]


def imported(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> tuple[VQAModel, dict[str, Tensor]]:
    golden = load_golden(name, dtype)
    return from_hengyuan(part(golden, "sd"), **more), golden


def last_id(golden: Mapping[str, Tensor]) -> int:
    return len(golden["sd/w_emb.emb.weight"]) - 1


def in_front(golden: Mapping[str, Tensor], padding_id: int) -> dict[str, Tensor]:
    """Inputs as the original's loader makes them; which id its padding has is what the mask is made of."""
    question, regions = golden["in/q"], golden["in/v"]
    return {
        "question": question,
        "regions": regions,
        **masks(question, regions),
        "question_mask": question != padding_id,
    }


def behind(golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same questions padded on the right, with zeros."""
    inputs = in_front(golden, last_id(golden))
    mask = inputs["question_mask"].flip(1)
    question = torch.zeros_like(inputs["question"])
    question[mask] = inputs["question"][inputs["question_mask"]]
    return inputs | {"question": question, "question_mask": mask}


def loss(logits: Tensor, golden: Mapping[str, Tensor]) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, golden["in/target"]) * logits.shape[1]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("padded_by", ["zero", "the last id"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_original_whatever_the_question_mask(name: str, padded_by: str, dtype: torch.dtype) -> None:
    model, golden = imported(name, dtype)
    seen: dict[str, Any] = {}
    for place in ("question_encoder", "coattention"):
        model.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, out, place=place: seen.update({place: out})
        )
    out = model(**in_front(golden, 0 if padded_by == "zero" else last_id(golden)), need_weights=True)
    check_logits(out.logits, golden)
    torch.testing.assert_close(seen["question_encoder"].summary, golden["mid/q_emb"], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.maps["pooling.regions"][:, 0].mT, golden["mid/v_att"], atol=1e-5, rtol=0)
    found = loss(out.logits, golden)
    torch.testing.assert_close(found, golden["out/loss_mean_times_A"], atol=1e-5, rtol=0)
    check_gradients(model, hengyuan_names(part(golden, "sd")), golden, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_word_of_id_zero_is_a_word(name: str) -> None:
    model, golden = imported(name)
    inputs = in_front(golden, 0)
    inputs["question"] = inputs["question"].clone()
    inputs["question"][:, -1] = 0  # the last word, which a mask of `question != 0` calls padding
    other = model(**inputs | {"question_mask": inputs["question"] != 0}).logits
    torch.testing.assert_close(other, model(**inputs | {"question_mask": inputs["question"] != last_id(golden)}).logits)
    assert (other - golden["out/logits"]).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_faithful_model_moves_padding_to_the_front(name: str) -> None:
    golden = load_golden(name)
    model, _ = imported(name, num_tokens=golden["in/q"].shape[1], num_regions=golden["in/v"].shape[1])
    inputs = behind(golden)
    torch.testing.assert_close(model(**inputs).logits, golden["out/logits"], atol=1e-5, rtol=0)
    for index, expected in enumerate(golden["out/logits"]):
        out = model(**row(inputs, index), need_weights=True)
        torch.testing.assert_close(out.logits[0], expected, atol=1e-5, rtol=0)
        seen = golden["mid/v_att"][index, :, 0][inputs["region_mask"][index]]
        torch.testing.assert_close(out.maps["pooling.regions"][0, 0, 0], seen, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_question_is_all_padding_in_the_original(name: str) -> None:
    golden = load_golden(name)
    loader, _ = imported(name)
    ours, _ = imported(name, num_tokens=golden["in/q"].shape[1])
    nothing = {"in/q": torch.full_like(golden["in/q"], last_id(golden))}
    expected = loader(**in_front(golden | nothing, last_id(golden))).logits
    inputs = behind(golden)
    empty = {"question": torch.zeros_like(inputs["question"]), "question_mask": inputs["question_mask"] & False}
    torch.testing.assert_close(ours(**inputs | empty).logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_repaired_model_ignores_padding_and_is_the_original_without_it(name: str, dtype: torch.dtype) -> None:
    model, golden = imported(name, dtype, repaired=True)
    inputs = behind(golden)
    logits = model(**inputs).logits
    full = inputs["question_mask"].all(1) & inputs["region_mask"].all(1)
    assert full.any()
    torch.testing.assert_close(logits[full], golden["out/logits"][full], atol=1e-5, rtol=0)
    assert (logits - golden["out/logits"])[~full].abs().max() > 1e-4
    check_ignores_padding(model, inputs)
    out = model(**emptied(inputs, question=1, regions=2), need_weights=True)
    assert out.logits.isfinite().all()
    assert out.maps["pooling.regions"][2].eq(0).all()


@pytest.mark.parametrize("more", [{}, {"num_tokens": 14}, {"repaired": True}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_is_built_again(name: str, more: dict[str, Any]) -> None:
    model, golden = imported(name, **more)
    check_round_trip(model, behind(golden))
    loss(model.train()(**behind(golden)).logits, golden).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    padding = gradients["question_encoder.embedding.embed.weight"]
    assert padding is not None
    assert padding[-1].eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_saved_inside_data_parallel_are_read(name: str) -> None:
    golden = load_golden(name)
    model = from_hengyuan({f"module.{key}": value for key, value in part(golden, "sd").items()})
    check_logits(model(**in_front(golden, last_id(golden))).logits, golden)


def test_the_table_goes_both_ways() -> None:
    model, golden = imported(NAMES[1])
    weights = part(golden, "sd")
    back = hengyuan_names(weights).to_theirs(model.state_dict())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    weights = part(load_golden(name), "sd")
    other = part(load_golden("openvqa_butd"), "sd")
    last = "classifier.main.3.bias"
    for wrong, message in (
        (other, r"not a checkpoint of hengyuan-hu's bottom-up-attention-vqa: it has no w_emb\.emb\.weight"),
        ({key: value for key, value in weights.items() if key != last}, f"lacks {last}"),
        (weights | {"more": torch.zeros(1)}, "has the unknown more"),
        (weights | {last: torch.zeros(3)}, rf"{last} is \(3,\), these settings need \(20,\)"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            from_hengyuan(wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="padding_id must be one of the 31 ids, got 31"):
        from_hengyuan(weights, padding_id=31)


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="one of concatenation, product, got 'sum'"):
        models.butd_hengyuan(region_dim=4, num_answers=3, num_words=5, attention="sum")  # type: ignore[arg-type]


def test_settings_are_compared_with_the_weights() -> None:
    weights = part(load_golden("hengyuan_butd_baseline0_newatt"), "sd")
    from_hengyuan(weights, {"model": "baseline0_newatt", "num_hid": 64, "batch_size": 512})
    with pytest.raises(ValueError, match="model is 'baseline0', but the weights are of 'baseline0_newatt'"):
        from_hengyuan(weights, {"model": "baseline0"})
    with pytest.raises(ValueError, match="num_hid is 1024, but the weights are of 64"):
        from_hengyuan(weights, {"num_hid": 1024})
