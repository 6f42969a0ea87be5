"""The model of mcan-vqa against what its own code gave."""

from __future__ import annotations

import pytest
import torch
from parity import load_golden, masks, part

from coattn.weights import from_mcan_vqa, mcan_vqa_names

CONFIG = {"LAYER": 2, "HIDDEN_SIZE": 64, "MULTI_HEAD": 4, "FLAT_GLIMPSES": 1, "DROPOUT_R": 0.1}


@pytest.mark.parametrize("config", [CONFIG, {"MULTI_HEAD": 4}], ids=["all", "only what weights do not imply"])
@pytest.mark.parametrize("repaired", [False, True])
def test_equals_the_original(repaired: bool, config: dict[str, object]) -> None:
    golden = load_golden("mcanvqa_probs")
    weights = part(golden, "sd")
    model = from_mcan_vqa({name: value.numpy() for name, value in weights.items()}, config, repaired=repaired)
    question, regions = golden["in/ques_ix"], golden["in/img_feat"]
    found = model(question, regions, **masks(question, regions)).logits.sigmoid()
    torch.testing.assert_close(found, golden["out/probs"], atol=1e-6, rtol=0)
    again = mcan_vqa_names(CONFIG).to_theirs(model.state_dict())
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the settings of mcan-vqa lack MULTI_HEAD"),
        (CONFIG | {"MULTI_HEAD": "4"}, "MULTI_HEAD is '4', not of type int"),
        (CONFIG | {"LAYER": 3}, "settings of mcan-vqa disagree: LAYER is 3, but the weights have 2"),
        (CONFIG | {"HIDDEN_SIZE": 32}, "the checkpoint and the settings of mcan-vqa disagree"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mcan_vqa(part(load_golden("mcanvqa_probs"), "sd"), config)


def test_a_checkpoint_of_openvqa_is_refused() -> None:
    with pytest.raises(ValueError, match="not a checkpoint of mcan-vqa"):
        from_mcan_vqa(part(load_golden("openvqa_mcan"), "sd"), CONFIG)
