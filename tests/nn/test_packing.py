import pytest
import torch

from coattn.nn import CoAttentionStack, GuidedAttention, QuestionSelfAttention, SelfGuidedAttention
from coattn.nn.coattention import modular
from coattn.nn.layers import lengths_to_mask
from coattn.nn.packing import pack, unpack

MASK = lengths_to_mask(torch.tensor([3, 0, 1, 4]), 4)


def test_packed_rows_are_the_real_ones_in_order() -> None:
    x = torch.randn(4, 4, 5, requires_grad=True)
    rows = pack(x, MASK)
    torch.testing.assert_close(rows, x[MASK])
    factors = torch.randn(8, 5)
    (rows * factors).sum().backward()
    torch.testing.assert_close(x.grad[MASK], factors)
    assert not x.grad[~MASK].any()


def test_unpacked_rows_have_zeros_at_padding() -> None:
    rows = torch.randn(8, 5, requires_grad=True)
    x = unpack(rows, MASK)
    torch.testing.assert_close(x[MASK], rows)
    assert not x[~MASK].any()
    factors = torch.randn(4, 4, 5)
    (x * factors).sum().backward()
    torch.testing.assert_close(rows.grad, factors[MASK])


def test_a_batch_without_padding_is_not_copied() -> None:
    x, mask = torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    rows = pack(x, mask)
    assert rows.shape == (6, 5)
    assert unpack(rows, mask).shape == unpack(x, mask).shape == x.shape
    assert rows.data_ptr() == unpack(rows, mask).data_ptr() == x.data_ptr()


def test_no_gradient_is_copied_for_an_operation_in_place_on_a_view() -> None:
    layer = QuestionSelfAttention(8, 8, num_heads=2, dropout=0.1)
    question, mask = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    output = layer(question, question, mask, mask).question.sum()
    names, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    assert "_ReluDropoutBackward" in names
    assert "torch::autograd::CopySlices" not in names


@pytest.mark.parametrize("need_weights", [False, True])
def test_layers_compute_the_same_with_and_without_packing(need_weights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kinds = (QuestionSelfAttention, GuidedAttention, SelfGuidedAttention)
    stack = CoAttentionStack([kind(8, 8, num_heads=2) for kind in kinds]).double()
    question, regions = torch.randn(4, 4, 8).double(), torch.randn(4, 6, 8).double()
    region_mask = lengths_to_mask(torch.tensor([6, 2, 0, 5]), 6)

    def run() -> list[torch.Tensor]:
        output = stack(question, regions, MASK, region_mask, need_weights=need_weights)
        sides = [output.question[MASK], output.regions[region_mask]]
        gradients = torch.autograd.grad(sum(side.square().sum() for side in sides), list(stack.parameters()))
        real = region_mask[:, None, :, None]
        maps = [weights * real for name, weights in output.maps.items() if "regions_to" in name]
        return [*sides, *gradients, *maps]

    packed = run()
    monkeypatch.setattr(modular, "pack", lambda x, mask: x)
    torch.testing.assert_close(packed, run())


def test_a_compiled_layer_has_fixed_shapes() -> None:
    layer = SelfGuidedAttention(8, 8, num_heads=2).eval()
    inputs = (torch.randn(4, 4, 8), torch.randn(4, 4, 8), MASK, MASK)
    program = torch.export.export(layer, inputs)
    for found, expected in zip(program.module()(*inputs)[:2], layer(*inputs)[:2], strict=True):
        torch.testing.assert_close(found[MASK], expected[MASK])


@pytest.mark.filterwarnings("ignore:.*trace")
def test_gradients_of_functions_and_traces_pass_through_packed_layers() -> None:
    layer = SelfGuidedAttention(8, 8, num_heads=2).eval()
    question, regions = torch.randn(4, 4, 8), torch.randn(4, 4, 8)

    def total(regions: torch.Tensor) -> torch.Tensor:
        return layer(question, regions, MASK, MASK).regions[MASK].square().sum()

    leaf = regions.clone().requires_grad_()
    total(leaf).backward()
    torch.testing.assert_close(torch.func.grad(total)(regions), leaf.grad)
    layer.requires_grad_(False)  # a trace takes them as constants
    traced = torch.jit.trace(total, (regions,))
    torch.testing.assert_close(traced(regions), total(regions))
