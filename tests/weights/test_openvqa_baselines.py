"""openvqa's baselines against what its own code gave, faithful and repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    kld_sum,
    load_config,
    load_golden,
    masks,
    padded,
    part,
    row,
)
from torch import Tensor, nn

from coattn import models
from coattn.nn import VQAModel
from coattn.weights import from_openvqa, openvqa_names

# Where our forward passes what their file has under `mid/`: the part, and our value from its output.
Seen = tuple[str, Callable[[Any], Tensor]]


def _itself(out: Tensor) -> Tensor:
    return out


BUTD: dict[str, Seen] = {
    "rnn.0": ("question_encoder", lambda out: out.tokens),
    "v_att": ("coattention", lambda out: out.maps["pooling.regions"][:, 0].mT),
    "atted_v": ("coattention", lambda out: out.pooled[0][1]),
    "q_repr": ("head.question", _itself),
    "v_repr": ("head.regions", _itself),
}
BAN: dict[str, Seen] = {
    "rnn.0": ("question_encoder", lambda out: out.tokens),
    "BiAtt_att_logits.0": ("coattention", lambda out: out.maps["glimpses.question_to_regions"].mT),
    "q_out": ("coattention", lambda out: out.question),
    **{f"bi_emb{g}": (f"coattention.pool.{g}", lambda out: out[:, None]) for g in range(3)},
    **{f"q_prj{g}_out": (f"coattention.project.{g}", lambda out: out[:, None]) for g in range(3)},
}
MFB: dict[str, Seen] = {
    "lstm.0": ("question_encoder", lambda out: out.tokens),
    "q_att_logits": ("coattention.question_pooling.score", _itself),
    "q_att_feat": ("coattention", lambda out: out.pooled[0][0]),
    "i_att_mfb.0": ("coattention.fuse", lambda out: out[0]),
    "i_att_mfb.1": ("coattention.fuse", lambda out: out[1]),
    "i_att_logits": ("coattention.region_pooling.score", _itself),
    "i_att_feat": ("coattention", lambda out: out.pooled[0][1]),
}
MFH = MFB | {
    f"mfh{block + 1}.{place}": (f"head.blocks.{block}", lambda out, place=place: out[place])
    for block in range(2)
    for place in range(2)
}
MIDDLES = {"openvqa_butd": BUTD, "openvqa_ban": BAN, "openvqa_mfb": MFB, "openvqa_mfh": MFH}
NAMES = list(MIDDLES)
LOSSES = {"openvqa_butd": bce_sum, "openvqa_ban": bce_sum, "openvqa_mfb": kld_sum, "openvqa_mfh": kld_sum}
# What goes into our classifier is what they call so.
JOINT = {"openvqa_butd": "joint", "openvqa_mfb": "z", "openvqa_mfh": "z"}


def inputs(golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    return {"question": question, "regions": regions, **masks(question, regions)}


def imported(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> tuple[VQAModel, dict[str, Tensor]]:
    golden = load_golden(name, dtype)
    return from_openvqa(part(golden, "sd"), load_config(name), **more), golden


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_original(name: str, dtype: torch.dtype) -> None:
    model, golden = imported(name, dtype)
    seen: dict[str, Tensor] = {}
    for middle, (place, read) in MIDDLES[name].items():
        model.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, out, middle=middle, read=read: seen.update({middle: read(out)})
        )
    if name in JOINT:
        model.get_submodule("head.classify").register_forward_pre_hook(
            lambda _module, arguments: seen.update({JOINT[name]: arguments[0]})
        )
    out = model(**inputs(golden), need_weights=True)
    check_logits(out.logits, golden)
    for middle, value in seen.items():
        torch.testing.assert_close(value, golden[f"mid/{middle}"], atol=1e-5, rtol=0, msg=middle)
    assert seen.keys() >= MIDDLES[name].keys()
    for which, logits in (("question", "q_att_logits"), ("regions", "i_att_logits")):
        if f"mid/{logits}" in golden:
            weights = golden[f"mid/{logits}"].softmax(1).mT[:, :, None]
            torch.testing.assert_close(out.maps[f"pooling.{which}"], weights, atol=1e-5, rtol=0)
    check_gradients(model, openvqa_names(load_config(name)), golden, LOSSES[name](out.logits, golden))


@pytest.mark.parametrize("name", NAMES)
def test_the_faithful_model_pads_as_the_original_does(name: str) -> None:
    _, golden = imported(name)
    given = inputs(golden)
    sizes = {"num_tokens": given["question"].shape[1], "num_regions": given["regions"].shape[1]}
    model, _ = imported(name, **sizes)
    for index, expected in enumerate(golden["out/logits"]):
        torch.testing.assert_close(model(**row(given, index)).logits[0], expected, atol=1e-5, rtol=0)
    model, _ = imported(name)
    more = model(**padded(given, tokens=3, regions=5)).logits
    assert (more - golden["out/logits"]).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_repaired_model_ignores_padding_and_is_the_original_without_it(name: str, dtype: torch.dtype) -> None:
    model, golden = imported(name, dtype, repaired=True)
    given = inputs(golden)
    logits = model(**given, need_weights=True).logits
    torch.testing.assert_close(logits, model(**given).logits, atol=0, rtol=0)
    full = given["question_mask"].all(1) & given["region_mask"].all(1)
    assert full.any()
    torch.testing.assert_close(logits[full], golden["out/logits"][full], atol=1e-5, rtol=0)
    assert (logits - golden["out/logits"])[~full].abs().max() > 1e-4
    check_ignores_padding(model, given)


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_described_model_is_built_again(name: str, repaired: bool) -> None:
    model, golden = imported(name, repaired=repaired)
    check_round_trip(model, inputs(golden))


@pytest.mark.parametrize("name", NAMES)
def test_empty_rows_are_repaired(name: str) -> None:
    model, golden = imported(name, repaired=True)
    given = emptied(inputs(golden), question=1, regions=2)
    out = model(**given, need_weights=True)
    assert out.logits.isfinite().all()
    for weights in out.maps.values():
        assert weights.isfinite().all()
    out.logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_empty_rows_are_as_in_the_original(name: str) -> None:
    model, golden = imported(name)
    given = inputs(golden)
    logits = model(**emptied(given, question=1, regions=2)).logits
    assert logits[:2].isfinite().all()
    assert logits[2].isnan().all() if "ban" in name else logits[2].isfinite().all()


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_trains(name: str, repaired: bool) -> None:
    model, golden = imported(name, repaired=repaired)
    model.train()
    LOSSES[name](model(**inputs(golden)).logits, golden).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def without_dropout(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("mlp.1.", "mlp.0."): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("name", ["openvqa_butd", "openvqa_ban"])
def test_without_dropout_their_names_move_up(name: str) -> None:
    golden, config = load_golden(name), load_config(name) | {"DROPOUT_R": 0}
    model = from_openvqa(without_dropout(part(golden, "sd")), config)
    check_logits(model(**inputs(golden)).logits, golden)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    weights, config = part(load_golden(name), "sd"), load_config(name)
    other = next(other for other in [*NAMES, "openvqa_mcan"] if other[:10] != name[:10])
    last = "classifer.3.bias" if "classifer.3.bias" in weights else "proj.bias"
    for wrong, settings, message in (
        (part(load_golden(other), "sd"), config, "not a checkpoint of openvqa's"),
        ({key: value for key, value in weights.items() if key != last}, config, f"lacks {last}"),
        (weights | {"more": torch.zeros(1)}, config, "has the unknown more"),
        (weights | {last: torch.zeros(3)}, config, rf"{last} is \(3,\), these settings need \(20,\)"),
        (weights, {key: value for key, value in config.items() if key != "DROPOUT_R"}, "lack DROPOUT_R"),
        (weights, config | {"MODEL_USE": "vilbert"}, "'vilbert' is not known"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            from_openvqa(wrong, settings)
        assert "\n" not in str(error.value)


def test_weight_norm_has_one_gain() -> None:
    model = models.butd(region_dim=4, num_answers=3, num_words=5, dim=8)
    ours = model.get_submodule("head.question")
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8), dim=None)  # type: ignore[arg-type]
    theirs.parametrizations.weight.original0.data = ours.weight_g.data
    theirs.parametrizations.weight.original1.data = ours.weight_v.data
    theirs.bias = ours.bias
    x = torch.randn(3, 8)
    torch.testing.assert_close(ours(x), nn.functional.elu(theirs(x)))


def test_mfh_is_known_by_its_name_too() -> None:
    golden, config = load_golden("openvqa_mfh"), load_config("openvqa_mfh")
    config = {key: value for key, value in config.items() if key != "HIGH_ORDER"} | {"MODEL_USE": "mfh"}
    check_logits(from_openvqa(part(golden, "sd"), config)(**inputs(golden)).logits, golden)


def test_mfb_and_mfh_are_not_confused() -> None:
    weights, config = part(load_golden("openvqa_mfb"), "sd"), load_config("openvqa_mfb")
    with pytest.raises(ValueError, match=r"has the unknown backbone\.mfb.*lacks backbone\.mfh1"):
        from_openvqa(weights, config | {"HIGH_ORDER": True})


def test_signed_roots_have_finite_gradients_at_zero() -> None:
    torch.manual_seed(0)
    _, golden = imported("openvqa_mfb")
    given = inputs(golden)
    model = models.mfh(
        region_dim=given["regions"].shape[-1], num_answers=20, num_words=30, dim=8, joint_dim=6, dropout=0.9
    )
    for _ in range(5):
        model(**given).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("repaired", [False, True])
def test_a_bilinear_map_is_one_share_out_of_words_and_regions(repaired: bool) -> None:
    model, golden = imported("openvqa_ban", repaired=repaired)
    given = inputs(golden)
    maps = model(**given, need_weights=True).maps
    whole = maps["glimpses.question_to_regions"]
    torch.testing.assert_close(whole.sum((2, 3)), torch.ones(whole.shape[:2]))
    torch.testing.assert_close(maps["pooling.question"][:, :, 0], whole.sum(3))
    torch.testing.assert_close(maps["pooling.regions"][:, :, 0], whole.sum(2))
    words = maps["pooling.question"] * ~given["question_mask"][:, None, None]
    assert (words > 0).any() != repaired
