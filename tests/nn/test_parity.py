"""The bricks against tensors that the published implementations gave (names: their state dicts)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coattn import presets
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


def mcan_names(num_layers: int) -> dict[str, str]:
    """Our parameter -> the name in openvqa's state dict."""
    names = {"question_encoder.embedding.embed.weight": "embedding.weight"}
    for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        names[f"question_encoder.recurrences.0.0.{part}"] = f"lstm.{part}"

    def linear(ours: str, theirs: str) -> None:
        names.update({f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")})

    def norm(ours: str, theirs: str) -> None:
        names.update({f"{ours}.weight": f"{theirs}.a_2", f"{ours}.bias": f"{theirs}.b_2"})

    def attention(ours: str, theirs: str) -> None:
        for our_part, their_part in (("query", "q"), ("key", "k"), ("value", "v"), ("merge", "merge")):
            linear(f"{ours}.{our_part}", f"{theirs}.linear_{their_part}")

    def mlp(ours: str, theirs: str) -> None:
        linear(f"{ours}.hidden", f"{theirs}.mlp.fc.linear")
        linear(f"{ours}.output", f"{theirs}.mlp.linear")

    linear("region_encoder.features", "adapter.frcn_linear")
    for i in range(num_layers):
        ours, theirs = f"coattention.layers.{i}", f"backbone.enc_list.{i}"
        attention(f"{ours}.read_itself", f"{theirs}.mhatt")
        norm(f"{ours}.residual.norm", f"{theirs}.norm1")
        mlp(f"{ours}.ffn.mlp", f"{theirs}.ffn")
        norm(f"{ours}.ffn.residual.norm", f"{theirs}.norm2")
        ours, theirs = f"coattention.layers.{num_layers + i}", f"backbone.dec_list.{i}"
        attention(f"{ours}.read_itself", f"{theirs}.mhatt1")
        norm(f"{ours}.self_residual.norm", f"{theirs}.norm1")
        attention(f"{ours}.read_question", f"{theirs}.mhatt2")
        norm(f"{ours}.guided_residual.norm", f"{theirs}.norm2")
        mlp(f"{ours}.ffn.mlp", f"{theirs}.ffn")
        norm(f"{ours}.ffn.residual.norm", f"{theirs}.norm3")
    for ours, theirs in (("question_pooling", "attflat_lang"), ("region_pooling", "attflat_img")):
        mlp(f"head.{ours}.score", theirs)
        linear(f"head.{ours}.merge", f"{theirs}.linear_merge")
    norm("head.normalise", "proj_norm")
    linear("head.classify", "proj")
    return names


def test_mcan_equals_the_authors_model(dtype: torch.dtype) -> None:
    golden = load("openvqa_mcan.npz", dtype)
    model = presets.mcan_small(
        num_words=30,
        embedding_dim=16,
        region_dim=32,
        num_answers=20,
        num_layers=2,
        dim=64,
        num_heads=4,
        ffn_dim=128,
        pooling_dim=48,
        joint_dim=96,
    )
    names = mcan_names(2)
    model.load_state_dict({ours: golden[f"sd/{theirs}"] for ours, theirs in names.items()})
    model = model.to(dtype).eval()
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    masks = {"question_mask": question != 0, "region_mask": regions.abs().sum(-1) > 0}
    out = model(question, regions, **masks, need_weights=True)
    exact = golden["out/logits_f64" if dtype == torch.float64 else "out/logits"]
    torch.testing.assert_close(out.logits, exact, atol=1e-5 if dtype == torch.float32 else 1e-10, rtol=0)
    torch.testing.assert_close(model(question, regions, **masks).logits, exact, atol=1e-5, rtol=0)
    # Rows of padded regions are not compared: the original gives them maps of their own.
    real = masks["region_mask"][:, None, :, None]
    for name, theirs in (("regions_to_question", "mhatt2"), ("regions_to_regions", "mhatt1")):
        expected = golden[f"mid/backbone.dec_list.1.{theirs}.att_map"]
        torch.testing.assert_close(out.maps[f"layers.3.{name}"] * real, expected * real, atol=1e-5, rtol=0)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(out.logits, golden["in/target"], reduction="sum")
    torch.testing.assert_close(loss, golden["out/loss_sum"], atol=1e-4, rtol=0)
    loss.backward()
    for ours, theirs in names.items():
        gradient = model.get_parameter(ours).grad
        torch.testing.assert_close(gradient, golden[f"grad/{theirs}"], atol=5e-5, rtol=1e-5)
