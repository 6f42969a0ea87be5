"""DCN against what its own code gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity import (
    PRECISIONS,
    bce_sum,
    check_gradients,
    check_ignores_padding,
    check_logits,
    check_round_trip,
    emptied,
    load_config,
    load_golden,
    part,
    recorded,
)
from torch import Tensor

from coattn import models
from coattn.nn import CoAttentionStack, DenseCoAttention, VQAModel
from coattn.weights import NameTable, dcn_names, from_dcn
from coattn.weights.dcn import add_dense_layer

FULL = "dcn_full_rcnn"
STACKS = ["dcn_stack_eq", "dcn_stack_neq"]


def close(found: Tensor, expected: Tensor, where: Tensor | None = None) -> None:
    """To 1e-5, `where` both hold what is read: theirs also has values at padding."""
    if where is not None:
        found, expected = found[where], expected[where]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# The stack of co-attention layers, on sides of equal and of different width


def stack_of(golden: dict[str, Tensor]) -> tuple[CoAttentionStack, NameTable]:
    weights = part(golden, "sd")
    names, depth = NameTable(), 1 + max(int(name.split(".")[1]) for name in weights)
    for layer in range(depth):
        add_dense_layer(names, f"layers.{layer}", f"dcn_layers.{layer}")
    widths = golden["in/data2"].shape[-1], golden["in/data1"].shape[-1]
    stack = CoAttentionStack([DenseCoAttention(*widths) for _ in range(depth)]).to(golden["in/data1"].dtype)
    stack.load_state_dict(names.to_ours(weights))
    return stack, names


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", STACKS)
def test_the_stack_equals_the_original(name: str, dtype: torch.dtype) -> None:
    golden = load_golden(name, dtype)
    regions, question = golden["in/data1"], golden["in/data2"]
    stack, names = stack_of(golden)
    seen = recorded(stack)
    out = stack(question, regions, golden["in/mask2"] > 0, golden["in/mask1"] > 0, need_weights=True)
    suffix, tolerance = ("", 1e-5) if dtype == torch.float32 else ("_f64", 1e-9)
    torch.testing.assert_close(out.regions, golden[f"out/data1{suffix}"], atol=tolerance, rtol=0)
    torch.testing.assert_close(out.question, golden[f"out/data2{suffix}"], atol=tolerance, rtol=0)
    for layer in range(len(stack.layers)):
        k = stack.layers[layer].num_nothing
        sides = (("question", "regions", "1", "2"), ("regions", "question", "2", "1"))
        for (ours, other, attention, data), update in zip(sides, ("question_update", "region_update"), strict=True):
            weights, theirs = out.maps[f"layers.{layer}.{ours}_to_{other}"], f"mid/layer{layer}.attn{attention}"
            close(weights, golden[theirs])
            close(weights, golden[f"{theirs}_full"][:, :, k:, k:])  # without the rows that stand for nothing
            given = seen[f"layers.{layer}.{update}"][0]
            close(
                given[..., (question if ours == "question" else regions).shape[-1] :],
                golden[f"mid/layer{layer}.weighted{attention}"],
            )
            close(getattr(seen[f"layers.{layer}"][1], ours), golden[f"mid/layer{layer}.data{data}"])
    (out.regions.square().sum() + out.question.square().sum()).backward()
    gradients = names.to_theirs({name: parameter.grad for name, parameter in stack.named_parameters()})
    expected = part(golden, "grad")
    assert gradients.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(gradients[key], gradient, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", STACKS)
def test_the_stack_without_masks_equals_the_original(name: str, dtype: torch.dtype) -> None:
    stack, _ = stack_of(load_golden(name, dtype))
    golden = load_golden(f"{name}_nomask", dtype)
    sides = golden["in/data2"], golden["in/data1"]
    out = stack(*sides, *(side.new_ones(side.shape[:2], dtype=torch.bool) for side in sides))
    close(out.regions, golden["out/data1"])
    close(out.question, golden["out/data2"])


# The whole model


def load(dtype: torch.dtype = torch.float32, *, repaired: bool = False) -> tuple[VQAModel, dict[str, Tensor]]:
    golden = load_golden(FULL, dtype)
    return from_dcn(part(golden, "sd"), load_config(FULL), repaired=repaired), golden


def inputs(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "question": golden["in/ques_emb"],
        "regions": golden["in/img_feat"],
        "question_mask": golden["in/ques_mask"] > 0,
        "region_mask": golden["in/img_mask"] > 0,
    }


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("repaired", [False, True])
def test_logits_maps_and_gradients_equal_the_original(repaired: bool, dtype: torch.dtype) -> None:
    model, golden = load(dtype, repaired=repaired)
    out = model(**inputs(golden), need_weights=True)
    check_logits(out.logits, golden)
    check_logits(model(**inputs(golden)).logits, golden)
    longest = golden["mid/lang.out"].shape[1]  # it cuts its questions to the longest
    close(out.maps["pooling.regions"][:, :, 0], golden["mid/summary0.attn"])
    close(out.maps["pooling.question"][:, :, 0, :longest], golden["mid/summary1.attn"])
    check_gradients(model, dcn_names(load_config(FULL)), golden, bce_sum(out.logits, golden))


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_intermediates_equal_the_original(dtype: torch.dtype) -> None:
    model, golden = load(dtype)
    seen = recorded(model)
    given = inputs(golden)
    model(**given)
    longest = golden["mid/lang.out"].shape[1]
    words, regions = given["question_mask"][:, :longest], given["region_mask"]
    close(words.to(dtype), golden["mid/lang.mask"])
    close(seen["question_encoder"][1].tokens[:, :longest], golden["mid/lang.out"], words)
    close(seen["region_encoder"][1], golden["mid/img"], regions)
    close(seen["coattention"][1].question[:, :longest], golden["mid/dense.ques"], words)
    close(seen["coattention"][1].regions, golden["mid/dense.img"], regions)
    close(seen["head.classify"][0], torch.cat((golden["mid/summary0"], golden["mid/summary1"]), -1))
    rows, last = torch.arange(len(words)), words.sum(1) - 1
    layers = model.question_encoder.recurrences
    ends = [seen[f"question_encoder.recurrences.{i}.{d}"][1][0][rows, last] for i in range(len(layers)) for d in (0, 1)]
    close(torch.cat(ends, -1), golden["mid/lang.vec"])


def test_the_table_of_names_works_in_both_directions() -> None:
    model, golden = load()
    theirs, weights = dcn_names(load_config(FULL)).to_theirs(model.state_dict()), part(golden, "sd")
    assert theirs.keys() == weights.keys()
    assert all(torch.equal(theirs[name], value) for name, value in weights.items())


@pytest.mark.parametrize("repaired", [False, True])
def test_ignores_padding_describes_itself_and_trains_even_on_empty_rows(repaired: bool) -> None:
    model, golden = load(repaired=repaired)
    check_ignores_padding(model, inputs(golden))
    check_round_trip(model, inputs(golden))
    out = model.train()(**emptied(inputs(golden), question=0, regions=1), need_weights=True)
    assert (out.maps["pooling.regions"][1].sum() == 0) == repaired
    out.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"img_extract.linear.weight": None}, {}, "not a checkpoint of DCN: it has no img_extract.linear.weight"),
        ({"predict.predict.0.bias": None}, {}, r"lacks predict.predict.0.bias"),
        ({}, {"num_seq": 3}, r"lacks dense_coattn.dcn_layers.2"),
        ({}, {"num_layers": 1}, r"has the unknown lang_extract.rnn"),
        ({}, {"num_dense_attn": 5}, r"num_heads=5 and width"),
        ({}, {"droprnn": None}, r"settings of DCN: droprnn is None"),
    ],
)
def test_refuses_other_weights_and_settings(change: dict[str, None], settings: dict[str, Any], message: str) -> None:
    weights = {name: value for name, value in part(load_golden(FULL), "sd").items() if name not in change}
    with pytest.raises(ValueError, match=message):
        from_dcn(weights, load_config(FULL) | settings)


def test_a_missing_setting_is_named() -> None:
    config = load_config(FULL)
    del config["num_seq"]
    with pytest.raises(ValueError, match="settings of DCN lack num_seq"):
        from_dcn(part(load_golden(FULL), "sd"), config)


def test_word_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="the word vectors are 7 wide, but DCN's checkpoint reads 16"):
        from_dcn(part(load_golden(FULL), "sd"), load_config(FULL), word_vectors=torch.zeros(5, 7))


def test_starts_as_the_authors_do() -> None:
    torch.manual_seed(0)
    model = models.dcn(region_dim=64, num_answers=5, num_words=9, dim=128, recurrent_dim=64, num_layers=1)
    weight = model.region_encoder.features.weight
    assert weight.std().item() == pytest.approx((2 / (64 + 128)) ** 0.5, rel=0.05)
    assert model.region_encoder.features.bias.abs().max() == 0
    for name, bias in model.question_encoder.recurrences.named_parameters():
        if "bias" in name:
            assert bias.chunk(4)[1].min() == 1
            assert bias.sum() == len(bias) / 4
