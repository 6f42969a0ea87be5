"""What the parity tests share: golden tensors of published code, and the comparison with a model of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coattn.checkpoint import NameTable
from coattn.nn import VQAModel

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
