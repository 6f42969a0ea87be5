"""The bricks against tensors that the published implementations gave (names: their state dicts)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coattn.nn import CoAttentionStack, DenseCoAttention

GOLDEN = Path(__file__).parents[1] / "golden"

DENSE_NAMES = {
    "question_affinity.weight": "dense_coattn.linears.1.weight",
    "region_affinity.weight": "dense_coattn.linears.0.weight",
    "question_nothing": "dense_coattn.nones.1",
    "region_nothing": "dense_coattn.nones.0",
    "region_update.weight": "linears.0.0.weight",
    "region_update.bias": "linears.0.0.bias",
    "question_update.weight": "linears.1.0.weight",
    "question_update.bias": "linears.1.0.bias",
}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def load(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    arrays = np.load(GOLDEN / name)
    tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


@pytest.mark.parametrize("name", ["dcn_stack_eq", "dcn_stack_neq"])
def test_dense_equals_the_authors_stack(name: str, dtype: torch.dtype) -> None:
    golden = load(f"{name}.npz", dtype)
    regions, question = golden["in/data1"], golden["in/data2"]
    stack = CoAttentionStack([DenseCoAttention(question.shape[-1], regions.shape[-1]) for _ in range(3)]).to(dtype)
    names = {f"layers.{i}.{ours}": f"dcn_layers.{i}.{theirs}" for i in range(3) for ours, theirs in DENSE_NAMES.items()}
    stack.load_state_dict({ours: golden[f"sd/{theirs}"] for ours, theirs in names.items()})
    out = stack(question, regions, golden["in/mask2"] > 0, golden["in/mask1"] > 0, need_weights=True)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    suffix = "" if dtype == torch.float32 else "_f64"
    torch.testing.assert_close(out.regions, golden[f"out/data1{suffix}"], atol=tolerance, rtol=0)
    torch.testing.assert_close(out.question, golden[f"out/data2{suffix}"], atol=tolerance, rtol=0)
    for i in range(3):
        for ours, theirs in (("question_to_regions", "attn1_full"), ("regions_to_question", "attn2_full")):
            full = golden[f"mid/layer{i}.{theirs}"][:, :, 3:, 3:]  # without the rows that stand for nothing
            torch.testing.assert_close(out.maps[f"layers.{i}.{ours}"], full, atol=1e-5, rtol=0)
    (out.regions.square().sum() + out.question.square().sum()).backward()
    for ours, theirs in names.items():
        gradient = stack.get_parameter(ours).grad
        torch.testing.assert_close(gradient, golden[f"grad/{theirs}"], atol=5e-5, rtol=1e-5)
