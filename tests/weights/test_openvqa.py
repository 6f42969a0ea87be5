"""Models of openvqa against what its own code gave."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from parity import PRECISIONS, bce_sum, check_gradients, check_logits, load_config, load_golden, masks, part
from torch import Tensor
from torch.nn import functional as F

from coattn.serialization.registry import build, describe
from coattn.weights import from_openvqa, openvqa_names

MCANS = ["openvqa_mcan", "openvqa_mcan_bbox", "openvqa_mcan_glimpse2"]


def check_maps(
    maps: Mapping[str, Tensor],
    golden: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    num_question_layers: int,
    *,
    repaired: bool,
) -> int:
    """Every map of attention between sequences, whose number is returned; `repaired` without the rows of padding.

    The encoders of a repaired model give zeros there, the original's do not.
    """
    real = {"question": inputs["question_mask"], "regions": inputs["region_mask"]}
    num_maps = 0
    for key, expected in part(golden, "mid").items():
        if not key.endswith(".att_map"):
            continue
        _, side, place, attention, _ = key.split(".")
        layer = f"layers.{int(place) + (num_question_layers if side == 'dec_list' else 0)}"
        whom = {"mhatt1": "_to_regions", "mhatt2": "_to_question"}.get(attention, "")
        (name,) = (name for name in maps if name.startswith(f"{layer}.") and name.endswith(whom))
        rows = real[name.rpartition(".")[2].split("_to_")[0]][:, None, :, None] if repaired else 1
        torch.testing.assert_close(maps[name] * rows, expected * rows, atol=1e-5, rtol=0)
        num_maps += 1
    return num_maps


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("name", MCANS)
def test_mcan_equals_the_original(name: str, repaired: bool, dtype: torch.dtype) -> None:
    golden, config = load_golden(name, dtype), load_config(name)
    model = from_openvqa(part(golden, "sd"), config, repaired=repaired)
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    inputs = masks(question, regions) | {"boxes": golden["in/bbox_feat"]}
    out = model(question, regions, **inputs, need_weights=True)
    check_logits(out.logits, golden)
    check_logits(model(question, regions, **inputs).logits, golden)
    assert check_maps(out.maps, golden, inputs, config["LAYER"], repaired=repaired) == 3 * config["LAYER"]
    check_gradients(model, openvqa_names(config), golden, bce_sum(out.logits, golden))


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("repaired", [False, True])
def test_mmnasnet_equals_the_original(repaired: bool, dtype: torch.dtype) -> None:
    golden, config = load_golden("openvqa_mmnasnet", dtype), load_config("openvqa_mmnasnet")
    model = from_openvqa(part(golden, "sd"), config, repaired=repaired)
    question, regions = golden["in/ques_ix"], golden["in/frcn_feat"]
    # The boxes of the golden file are in pixels.
    inputs = masks(question, regions) | {"boxes": golden["in/bbox_feat"], "image_sizes": torch.ones(len(question), 2)}
    out = model(question, regions, **inputs, need_weights=True)
    check_logits(out.logits, golden)
    check_logits(model(question, regions, **inputs).logits, golden)
    num_maps = check_maps(out.maps, golden, inputs, len(config["ARCH"]["enc"]), repaired=repaired)
    assert num_maps == len(out.maps) - 2
    check_gradients(model, openvqa_names(config), golden, bce_sum(out.logits, golden))


def test_mmnasnet_needs_pixels() -> None:
    golden, config = load_golden("openvqa_mmnasnet"), load_config("openvqa_mmnasnet")
    model = from_openvqa(part(golden, "sd"), config)
    question, regions = golden["in/ques_ix"], golden["in/frcn_feat"]
    with pytest.raises(ValueError, match="image_sizes"):
        model(question, regions, **masks(question, regions), boxes=golden["in/bbox_feat"])
    with pytest.raises(ValueError, match="pass boxes"):
        model(question, regions, **masks(question, regions))
    # In [0, 1] with the size of the image they are the same boxes.
    sizes = torch.tensor([[640.0, 480.0]]).expand(len(question), -1)
    inputs = masks(question, regions)
    scaled = model(
        question, regions, **inputs, boxes=golden["in/bbox_feat"] / sizes.repeat(1, 2)[:, None], image_sizes=sizes
    )
    check_logits(scaled.logits, golden)


@pytest.mark.parametrize("name", ["openvqa_mcan_bbox", "openvqa_mmnasnet"])
def test_a_repaired_model_does_not_see_padding(name: str) -> None:
    golden, config = load_golden(name), load_config(name)
    model = from_openvqa(part(golden, "sd"), config, repaired=True)
    question, regions, boxes = golden["in/ques_ix"].long(), golden["in/frcn_feat"], golden["in/bbox_feat"]
    inputs = masks(question, regions)
    inputs["question_mask"][0, :] = inputs["region_mask"][1, :] = False  # an empty question, an empty image
    sizes = torch.ones(len(question), 2)
    expected = model(question, regions, **inputs, boxes=boxes, image_sizes=sizes).logits
    assert expected.isfinite().all()
    padded = {key: F.pad(mask, (0, 3)) for key, mask in inputs.items()}
    found = model(
        F.pad(question, (0, 3)),
        F.pad(regions, (0, 0, 0, 3)),
        **padded,
        boxes=F.pad(boxes, (0, 0, 0, 3)),
        image_sizes=sizes,
    ).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_mmnasnet_trains_and_is_built_again() -> None:
    golden, config = load_golden("openvqa_mmnasnet"), load_config("openvqa_mmnasnet")
    model = from_openvqa(part(golden, "sd"), config, num_tokens=14, num_regions=100)
    again = build(describe(model))
    again.load_state_dict(model.state_dict())
    question, regions = golden["in/ques_ix"], golden["in/frcn_feat"]
    inputs = masks(question, regions) | {"boxes": golden["in/bbox_feat"], "image_sizes": torch.ones(len(question), 2)}
    assert torch.equal(again.eval()(question, regions, **inputs).logits, model(question, regions, **inputs).logits)
    bce_sum(again.train()(question, regions, **inputs).logits, golden).backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_mcan_measures_boxes_in_pixels_unless_normalised() -> None:
    golden, config = load_golden("openvqa_mcan_bbox"), load_config("openvqa_mcan_bbox") | {"BBOX_NORMALIZE": False}
    model = from_openvqa(part(golden, "sd"), config)
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    sizes = torch.full((len(question), 2), 0.5)
    out = model(question, regions, **masks(question, regions), boxes=golden["in/bbox_feat"] * 2, image_sizes=sizes)
    check_logits(out.logits, golden)


def test_mcan_reads_the_grid_of_clevr() -> None:
    golden, config = load_golden("openvqa_mcan"), load_config("openvqa_mcan")
    weights = {name.replace("frcn_linear", "grid_linear"): value for name, value in part(golden, "sd").items()}
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    for settings in (config | {"DATASET": "clevr"}, {key: config[key] for key in config if key != "DATASET"}):
        check_logits(from_openvqa(weights, settings)(question, regions, **masks(question, regions)).logits, golden)
    assert "adapter.grid_linear.weight" in openvqa_names(config | {"DATASET": "clevr"}).to_theirs(
        from_openvqa(weights, config | {"DATASET": "clevr"}).state_dict()
    )
    with pytest.raises(ValueError, match="regions and the cells of a grid"):
        from_openvqa(weights | part(golden, "sd"), config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ARCH": None}, "ARCH is None"),
        ({"ARCH": {"enc": ["SA"]}}, "ARCH lack dec"),
        ({"ARCH": {"enc": ["GA"], "dec": ["SA"]}}, "question_operations must be of SA, FFN, got 'GA'"),
        ({"REL_HBASE": 7}, "REL_HBASE 7 does not divide its HIDDEN_SIZE 64"),
        ({"ARCH": {"enc": ["SA"], "dec": ["SA"]}}, "not a checkpoint of openvqa's mmnasnet with these settings"),
        ({"MODEL_USE": "mcan", "LAYER": 2}, "not a checkpoint of openvqa's mcan"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    golden, config = load_golden("openvqa_mmnasnet"), load_config("openvqa_mmnasnet")
    with pytest.raises(ValueError, match=message):
        from_openvqa(part(golden, "sd"), config | change)


@pytest.mark.parametrize("key", ["LAYER", "HIDDEN_SIZE", "FLAT_GLIMPSES"])
def test_absurd_sizes_are_refused_before_a_model_is_built(key: str) -> None:
    golden, config = load_golden("openvqa_mcan"), load_config("openvqa_mcan")
    with pytest.raises(ValueError, match=f"disagree: {key} is 1000000000000, but the weights have {config[key]}"):
        from_openvqa(part(golden, "sd"), config | {key: 10**12})


def test_weights_that_are_no_numbers_are_refused() -> None:
    golden, config = load_golden("openvqa_mcan"), load_config("openvqa_mcan")
    weights = part(golden, "sd")
    weights["proj.bias"] = torch.full_like(torch.as_tensor(weights["proj.bias"]), float("nan"))
    with pytest.raises(ValueError, match=r"proj\.bias of the checkpoint holds NaN or infinity"):
        from_openvqa(weights, config)
