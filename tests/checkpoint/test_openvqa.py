"""Models of openvqa against what its own code gave."""

from __future__ import annotations

import pytest
import torch
from parity import PRECISIONS, bce_sum, check_gradients, check_logits, load_config, load_golden, masks, part

from coattn.checkpoint import from_openvqa, openvqa_names

MCANS = ["openvqa_mcan", "openvqa_mcan_bbox", "openvqa_mcan_glimpse2"]


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
    # Rows of padded regions are not compared: the original gives them maps of their own.
    real = inputs["region_mask"][:, None, :, None]
    for ours, theirs in (("regions_to_question", "mhatt2"), ("regions_to_regions", "mhatt1")):
        expected = golden[f"mid/backbone.dec_list.1.{theirs}.att_map"]
        torch.testing.assert_close(out.maps[f"layers.3.{ours}"] * real, expected * real, atol=1e-5, rtol=0)
    check_gradients(model, openvqa_names(config), golden, bce_sum(out.logits, golden))
