"""The contract of every co-attention layer: alone, three deep, and mixed."""

import pytest
import torch
from torch import Tensor, nn

from coattn.models import LAYERS, make_layer
from coattn.nn import CoAttentionStack

STACKS = {
    **{name: [name] for name in LAYERS},
    **{f"3 {name}": [name] * 3 for name in ("parallel", "alternating", "dense", "modular")},
    "mixed": ["parallel", "alternating", "dense", "modular"],
    "mixed the other way": ["modular", "dense", "alternating", "parallel"],
}
WIDTHS = [(8, 8), (8, 12), (12, 8)]


def build(names: list[str], question_dim: int = 8, region_dim: int = 12, dropout: float = 0.0) -> CoAttentionStack:
    torch.manual_seed(0)
    layers = [make_layer(n, question_dim, region_dim, num_heads=2, ffn_dim=None, dropout=dropout) for n in names]
    return CoAttentionStack(layers)


def inputs(question_dim: int = 8, region_dim: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    question_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    region_mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    question = torch.randn(3, 4, question_dim, generator=generator) * question_mask[..., None]
    regions = torch.randn(3, 5, region_dim, generator=generator) * region_mask[..., None]
    return question, regions, question_mask, region_mask


@pytest.mark.parametrize("names", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize(("question_dim", "region_dim"), WIDTHS)
def test_shapes_maps_and_fused_equality(names: list[str], question_dim: int, region_dim: int) -> None:
    stack = build(names, question_dim, region_dim).eval()
    question, regions, question_mask, region_mask = inputs(question_dim, region_dim)
    plain = stack(question, regions, question_mask, region_mask)
    mapped = stack(question, regions, question_mask, region_mask, need_weights=True)
    assert plain.question.shape == question.shape
    assert plain.regions.shape == regions.shape
    assert plain.maps == {}
    for side, mask in (("question", question_mask), ("regions", region_mask)):
        torch.testing.assert_close(getattr(mapped, side)[mask], getattr(plain, side)[mask], atol=1e-6, rtol=0)
    assert {name.split(".")[1] for name in mapped.maps} == {str(i) for i in range(len(names))}
    masks = {"question": question_mask, "regions": region_mask}
    for name, weights in mapped.maps.items():
        to, source = name.split(".")[2].split("_to_")
        assert weights.shape == (3, 2, masks[to].shape[1], masks[source].shape[1])
        assert (weights * ~masks[source][:, None, None] == 0).all()
        total = weights.sum(-1)
        if "dense" in names[int(name.split(".")[1])]:  # the rest attends to nothing
            assert ((total > 0) & (total < 1)).all()
        else:
            torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("names", STACKS.values(), ids=STACKS)
def test_more_padding_changes_nothing(names: list[str]) -> None:
    stack = build(names).eval()
    question, regions, question_mask, region_mask = inputs()
    before = stack(question, regions, question_mask, region_mask)
    more = nn.functional.pad
    after = stack(
        more(question, (0, 0, 0, 3)),
        more(regions, (0, 0, 0, 7)),
        more(question_mask, (0, 3)),
        more(region_mask, (0, 7)),
    )
    torch.testing.assert_close(after.question[:, :4][question_mask], before.question[question_mask], atol=1e-6, rtol=0)
    torch.testing.assert_close(after.regions[:, :5][region_mask], before.regions[region_mask], atol=1e-6, rtol=0)


@pytest.mark.parametrize("names", STACKS.values(), ids=STACKS)
def test_order_of_the_batch_and_of_the_regions_does_not_matter(names: list[str]) -> None:
    stack = build(names).eval()
    question, regions, question_mask, region_mask = inputs()
    before = stack(question, regions, question_mask, region_mask)
    batch = torch.tensor([2, 0, 1])
    after = stack(question[batch], regions[batch], question_mask[batch], region_mask[batch])
    torch.testing.assert_close(after.question, before.question[batch], atol=1e-6, rtol=0)
    places = torch.tensor([3, 1, 4, 0, 2])
    after = stack(question, regions[:, places], question_mask, region_mask[:, places])
    torch.testing.assert_close(after.question[question_mask], before.question[question_mask], atol=1e-6, rtol=0)


@pytest.mark.parametrize("names", STACKS.values(), ids=STACKS)
def test_gradients_reach_every_parameter(names: list[str]) -> None:
    stack = build(names).double()
    question, regions, question_mask, region_mask = inputs()
    out = stack(question.double(), regions.double(), question_mask, region_mask)
    (out.question[question_mask].square().sum() + out.regions[region_mask].pow(3).sum()).backward()
    for name, parameter in stack.named_parameters():
        assert parameter.grad is not None, name
        # Softmax does not see a bias that moves all scores of a row alike.
        if name.endswith(("k_proj.bias", "score.output.bias")):
            assert parameter.grad.abs().max() < 1e-12, name
        else:
            assert parameter.grad.abs().max() > 1e-12, name


@pytest.mark.parametrize("name", LAYERS)
def test_gradcheck(name: str) -> None:
    stack = build([name], 4, 4).double()
    question, regions, question_mask, region_mask = inputs(4, 4)

    def run(question: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        out = stack(question, regions, question_mask[:2, :2], region_mask[:2, :3])
        return out.question, out.regions

    sides = (question[:2, :2].double().requires_grad_(), regions[:2, :3].double().requires_grad_())
    assert torch.autograd.gradcheck(run, sides)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_autocast_is_close(name: str) -> None:
    stack = build([name] * 2).eval()
    question, regions, question_mask, region_mask = inputs()
    exact = stack(question, regions, question_mask, region_mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = stack(question, regions, question_mask, region_mask)
    torch.testing.assert_close(rough.question.float(), exact.question, atol=0.1, rtol=0.05)
    assert rough.regions.isfinite().all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_side_without_real_elements_stays_finite(name: str) -> None:
    stack = build([name] * 2)
    question, regions, question_mask, region_mask = inputs()
    region_mask = torch.zeros_like(region_mask)
    out = stack(question, torch.zeros_like(regions), question_mask, region_mask)
    (out.question.sum() + out.regions.sum()).backward()
    assert out.question.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stack.parameters())


def test_state_round_trip() -> None:
    first, second = build(["parallel", "dense"]), build(["parallel", "dense"])
    for parameter in first.parameters():
        nn.init.normal_(parameter)
    second.load_state_dict(first.state_dict())
    data = inputs()
    torch.testing.assert_close(second(*data).question, first(*data).question, atol=0, rtol=0)


def test_shared_weights_apply_one_layer_repeatedly() -> None:
    layer = build(["parallel"]).layers[0]
    recurrent = CoAttentionStack([layer], order=[0, 0, 0])  # type: ignore[list-item]
    question, regions, question_mask, region_mask = inputs()
    out = recurrent(question, regions, question_mask, region_mask, need_weights=True)
    for _ in range(3):
        question, regions, _ = layer(question, regions, question_mask, region_mask)
    torch.testing.assert_close(out.question, question, atol=1e-6, rtol=0)
    assert len(out.maps) == 6
    assert len(recurrent.state_dict()) == len(layer.state_dict())


def test_alternating_is_an_order_of_steps() -> None:
    """Regions read the question *after* it read itself, and the question the *new* regions."""
    layer = build(["alternating"], 8, 8).layers[0]
    question, regions, question_mask, region_mask = inputs(8, 8)
    update, _ = layer.self_attn(question, question, question_mask)
    new_question = layer.first_residual(question, update)
    update, _ = layer.question_attn(regions, new_question, question_mask)
    new_regions = layer.second_residual(regions, update)
    update, _ = layer.region_attn(new_question, new_regions, region_mask)
    expected = layer.question_ffn(layer.third_residual(new_question, update))
    torch.testing.assert_close(layer(question, regions, question_mask, region_mask).question, expected)
    # Image first instead: the regions read the raw question.
    update, _ = layer.question_attn(regions, question, question_mask)
    other_regions = layer.second_residual(regions, update)
    assert (other_regions - new_regions)[region_mask].abs().max() > 1e-3


def test_parallel_reads_old_inputs_through_one_affinity() -> None:
    layer = build(["parallel"]).layers[0]
    question, regions, question_mask, region_mask = inputs()
    _, _, maps = layer(question, regions, question_mask, region_mask, need_weights=True)
    q = layer.question_affinity(question).unflatten(-1, (2, -1))
    v = layer.region_affinity(regions).unflatten(-1, (2, -1))
    affinity = torch.einsum("bthd,brhd->bhtr", q, v) / q.shape[-1] ** 0.5
    rows = affinity.masked_fill(~region_mask[:, None, None], -1e9).softmax(-1)
    columns = affinity.masked_fill(~question_mask[:, None, :, None], -1e9).softmax(-2).transpose(-2, -1)
    torch.testing.assert_close(maps["question_to_regions"], rows)
    torch.testing.assert_close(maps["regions_to_question"], columns)


def test_modular_is_self_attention_and_then_guided_attention() -> None:
    layer = build(["modular"]).layers[0]
    data = inputs()
    in_turn = CoAttentionStack([layer.question_layer, layer.region_layer])  # type: ignore[list-item]
    torch.testing.assert_close(layer(*data).regions, in_turn(*data).regions, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("layers", "order", "message"),
    [
        ([], None, "at least one"),
        ([(8, 8), (8, 12)], None, r"\(8, 12\)"),
        ([(8, 8), (8, 8)], [0, 0], "each of the 2"),
        ([(8, 8)], [0, 1], "each of the 1"),
    ],
)
def test_impossible_stacks_are_refused(layers: list[tuple[int, int]], order: list[int] | None, message: str) -> None:
    built = [make_layer("dense", *widths, num_heads=2, ffn_dim=None, dropout=0.0) for widths in layers]
    with pytest.raises(ValueError, match=message):
        CoAttentionStack(built, order=order)


def test_the_gate_multiplies_regions_by_the_pooled_question() -> None:
    layer = build(["question_gate"]).layers[0]
    question, regions, question_mask, region_mask = inputs()
    out = layer(question, regions, question_mask, region_mask, need_weights=True)
    weights = out.maps["regions_to_question"]  # (B, H, R, T), alike for all regions
    assert torch.equal(weights, weights[:, :, :1].expand_as(weights))
    pooled = torch.einsum("bht,btd->bhd", weights[:, :, 0], question).flatten(1)
    gate = layer.pool.merge(pooled)[:, None]
    expected = nn.functional.layer_norm(regions * (1 + gate), (12,))
    torch.testing.assert_close(out.regions[region_mask], expected[region_mask], atol=1e-5, rtol=0)
    assert out.question is question
