"""Shared by the parity tests: golden tensors of published code, and the comparison with a model of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coattn.nn import VQAModel
from coattn.serialization.registry import build, describe
from coattn.weights import NameTable

GOLDEN = Path(__file__).parents[1] / "golden"
PRECISIONS = [torch.float32, torch.float64]


def load_golden(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The arrays of a golden file, floats as `dtype`."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def load_config(name: str) -> dict[str, Any]:
    """The settings beside a golden file."""
    return json.loads((GOLDEN / f"{name}.cfg.json").read_text())


def part(golden: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix/`, without it."""
    return {key.removeprefix(f"{prefix}/"): value for key, value in golden.items() if key.startswith(f"{prefix}/")}


def masks(question: Tensor, regions: Tensor) -> dict[str, Tensor]:
    """Masks of golden inputs, which pad with zeros."""
    return {"question_mask": question != 0, "region_mask": regions.abs().sum(-1) > 0}


def check_logits(found: Tensor, golden: Mapping[str, Tensor]) -> None:
    """float32 to 1e-5; float64 to 1e-9 where the golden file has such logits."""
    if found.dtype == torch.float64 and "out/logits_f64" in golden:
        torch.testing.assert_close(found, golden["out/logits_f64"], atol=1e-9, rtol=0)
    else:
        torch.testing.assert_close(found, golden["out/logits"].to(found.dtype), atol=1e-5, rtol=0)


def check_gradients(model: VQAModel, names: NameTable, golden: Mapping[str, Tensor], loss: Tensor) -> None:
    """Gradients of `loss`, under their names, to 5e-5 (and 1e-5 of each, as float32 rounds)."""
    model.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    found = names.to_theirs({name: gradient for name, gradient in gradients.items() if gradient is not None})
    expected = part(golden, "grad")
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=5e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def bce_sum(logits: Tensor, golden: Mapping[str, Tensor]) -> Tensor:
    """The loss whose gradients most golden files hold."""
    return F.binary_cross_entropy_with_logits(logits, golden["in/target"].to(logits.dtype), reduction="sum")


def kld_sum(logits: Tensor, golden: Mapping[str, Tensor]) -> Tensor:
    """The loss of openvqa's MFB and MFH, to whose targets it gives the soft scores as they are."""
    return F.kl_div(logits.log_softmax(-1), golden["in/target"].to(logits.dtype), reduction="sum")


def padded(inputs: Mapping[str, Tensor], *, tokens: int, regions: int) -> dict[str, Tensor]:
    """Inputs of a model with this number of further padded tokens and regions, on the right."""
    more = {name: tokens if "question" in name else regions for name in inputs}
    return {name: F.pad(value, (0, 0) * (value.dim() - 2) + (0, more[name])) for name, value in inputs.items()}


def row(inputs: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """One question about one image without its padding, which is on the right."""
    single = {name: value[index : index + 1] for name, value in inputs.items()}
    ends = {name: int(single[f"{name}_mask"].sum()) for name in ("question", "region")}
    return {name: value[:, : ends["question" if "question" in name else "region"]] for name, value in single.items()}


def check_ignores_padding(model: VQAModel, inputs: Mapping[str, Tensor]) -> None:
    """More padding on either side leaves the logits alone, and so does the company of a batch."""
    logits = model(**inputs).logits
    torch.testing.assert_close(model(**padded(inputs, tokens=3, regions=5)).logits, logits, atol=1e-6, rtol=0)
    for index in range(len(logits)):
        torch.testing.assert_close(model(**row(inputs, index)).logits[0], logits[index], atol=1e-6, rtol=0)


def check_round_trip(model: VQAModel, inputs: Mapping[str, Tensor]) -> None:
    """The config and the weights of a model make the same model."""
    copy = build(describe(model))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.eval()(**inputs).logits, model(**inputs).logits)


def emptied(inputs: Mapping[str, Tensor], *, question: int, regions: int) -> dict[str, Tensor]:
    """Inputs whose row `question` has no token and whose row `regions` has no region."""
    changed = {name: value.clone() for name, value in inputs.items()}
    for name in ("question", "question_mask"):
        changed[name][question] = 0
    for name in ("regions", "region_mask"):
        changed[name][regions] = 0
    return changed


def recorded(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Filled in the next forward pass: for each part, by name, what goes into it first and what comes out."""
    seen: dict[str, tuple[Any, Any]] = {}
    for name, part_of_it in module.named_modules():
        part_of_it.register_forward_hook(
            lambda _, given, out, name=name: seen.update({name: (given[0] if given else None, out)})
        )
    return seen
