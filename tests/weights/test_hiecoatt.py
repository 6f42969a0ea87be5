"""HieCoAtt against a float64 reference of its authors' code."""

from __future__ import annotations

import pytest
import torch
from parity import PRECISIONS, load_golden, masks, part, recorded
from torch import Tensor
from torch.nn import functional as F

from coattn.nn import VQAModel
from coattn.serialization.registry import build, describe
from coattn.weights import from_hiecoatt, hiecoatt_names

NAMES = ["hiecoatt_parallel", "hiecoatt_alternating"]
LEVELS = {"word": "word", "phrase": "phrase", "question": "ques"}  # our names and theirs


def load(name: str, dtype: torch.dtype = torch.float64, **options: bool) -> tuple[VQAModel, dict[str, Tensor]]:
    golden = load_golden(name, dtype)
    return from_hiecoatt(part(golden, "w"), **options), golden


def run(model: VQAModel, golden: dict[str, Tensor], more_tokens: int = 0, more_regions: int = 0) -> Tensor:
    question = F.pad(golden["in/seq"], (0, more_tokens))
    regions = F.pad(golden["in/img"], (0, 0, 0, more_regions))
    return model(question, regions, **masks(question, regions)).logits


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_logits_maps_and_intermediates_equal_the_original(name: str, dtype: torch.dtype) -> None:
    model, golden = load(name, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    seen = recorded(model)
    question, regions = golden["in/seq"], golden["in/img"]
    out = model(question, regions, **masks(question, regions), need_weights=True)
    found = {"out/logits": out.logits, "mid/img.feat": seen["region_encoder.features"][1].tanh()}
    for window, theirs in enumerate(("uni", "bi", "tri")):
        found[f"mid/phrase.{theirs}"] = seen[f"question_encoder.windows.{window}"][1].mT[:, : question.shape[1]]
    encoded = model.question_encoder(question, question != 0)
    attended = model.coattention(encoded, found["mid/img.feat"], *masks(question, regions).values())
    for place, (ours, theirs) in enumerate(LEVELS.items()):
        found[f"mid/{theirs}.feat"] = encoded.levels[place]
        found[f"mid/{theirs}.q"], found[f"mid/{theirs}.v"] = attended.pooled[place]
        found[f"mid/{theirs}.ques_atten"] = out.maps[f"{ours}.pooling.question"][:, 0, 0]
        found[f"mid/{theirs}.img_atten"] = out.maps[f"{ours}.pooling.regions"][:, 0, 0]
        pooling = f"coattention.poolings.{place}"
        if "parallel" in name:
            affinity = encoded.levels[place] @ seen[f"{pooling}.region_affinity"][1].mT
            found[f"mid/{theirs}.C"] = affinity.tanh()
            found[f"mid/{theirs}.Hq"] = seen[f"{pooling}.question_score"][0]
            found[f"mid/{theirs}.Hv"] = seen[f"{pooling}.region_score"][0]
        else:
            found[f"mid/{theirs}.ques_atten1"] = out.maps[f"{ours}.pooling.first.question"][:, 0, 0]
            found[f"mid/{theirs}.ques_summary1"] = seen[f"{pooling}.second.guide"][0]
            for number, step in enumerate(("first", "second", "third"), 1):
                found[f"mid/{theirs}.H{number}"] = seen[f"{pooling}.{step}.score"][0]
        found[f"mid/atten.h{place + 1}"] = seen[f"head.levels.{place}"][1].tanh()
    expected = {key: value for key, value in golden.items() if key.startswith(("mid/", "out/"))}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key], value, atol=tolerance, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )
    torch.testing.assert_close(run(model, golden), golden["out/logits"], atol=tolerance, rtol=0)  # without maps


@pytest.mark.parametrize("name", NAMES)
def test_only_the_repaired_model_is_blind_to_padding(name: str) -> None:
    faithful, golden = load(name)
    repaired, _ = load(name, repaired=True)
    for more in ({"more_tokens": 4}, {"more_regions": 3}, {"more_tokens": 1, "more_regions": 30}):
        torch.testing.assert_close(run(repaired, golden, **more), run(repaired, golden), atol=1e-12, rtol=0)
    change = (run(faithful, golden, more_tokens=4) - run(faithful, golden)).abs().max()
    # Parallel: padding has phrases, which the affinity shows to the regions. Alternating pools the question masked.
    assert change > 1e-3 if "parallel" in name else change < 1e-12
    assert (run(faithful, golden, more_regions=3) - run(faithful, golden)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_without_padding_both_forms_are_one(name: str) -> None:
    faithful, golden = load(name)
    repaired, _ = load(name, repaired=True)
    for row in range(len(golden["in/seq"])):
        length = int((golden["in/seq"][row] != 0).sum())
        single = {"in/seq": golden["in/seq"][row : row + 1, :length], "in/img": golden["in/img"][row : row + 1]}
        torch.testing.assert_close(run(repaired, single), run(faithful, single), atol=1e-12, rtol=0)


def test_the_faithful_model_pads_as_the_original() -> None:
    weights = part(load_golden("hiecoatt_parallel", torch.float64), "w")
    golden = load_golden("hiecoatt_parallel", torch.float64)
    short = golden | {"in/seq": golden["in/seq"][:, :6]}
    torch.testing.assert_close(
        run(from_hiecoatt(weights, num_tokens=8), short), golden["out/logits"], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_names_works_in_both_directions(name: str) -> None:
    model, golden = load(name)
    weights = part(golden, "w")
    theirs = hiecoatt_names(weights).to_theirs(model.state_dict())
    assert theirs.keys() == weights.keys()
    assert all(torch.equal(theirs[key], value) for key, value in weights.items())
    prefixed = {f"w/{key}": value.numpy() for key, value in weights.items()}
    assert torch.equal(run(from_hiecoatt(prefixed), golden), run(model, golden))


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_describes_itself_and_trains_even_on_empty_rows(name: str, repaired: bool) -> None:
    model, golden = load(name, repaired=repaired)
    copy = build(describe(model)).double().eval()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(run(copy, golden), run(model, golden))
    golden["in/seq"][0] = 0
    golden["in/img"][1] = 0
    run(model.train(), golden).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atten.out.weight": None}, "not a checkpoint of HieCoAttenVQA: it has no atten.out.weight"),
        ({"ques.h2h_2.bias": None}, "lacks ques.h2h_2.bias"),
        ({"word.img_corr.weight": torch.zeros(3, 3)}, r"word.img_corr.weight is \(3, 3\), these settings need"),
        ({"proj.weight": torch.zeros(3)}, "has the unknown proj.weight"),
    ],
)
def test_refuses_other_weights(change: dict[str, Tensor | None], message: str) -> None:
    weights = part(load_golden("hiecoatt_parallel"), "w") | change
    with pytest.raises(ValueError, match=message):
        from_hiecoatt({name: value for name, value in weights.items() if value is not None})
