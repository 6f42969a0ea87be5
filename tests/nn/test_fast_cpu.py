import pytest
import torch

from coattn.nn import fast_cpu
from coattn.nn.attention import attend
from coattn.nn.fast_cpu import (
    Linear,
    dropout,
    plain_dropout,
    plain_linear,
    plain_relu_dropout,
    plain_unbiased_layer_norm,
    relu_dropout,
    unbiased_layer_norm,
)
from coattn.nn.layers import Dropout

SIZES = [(), (1,), (7, 3), (0, 4), (64, 33)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_places_are_kept_as_often_as_asked_and_scaled_so_that_the_mean_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    count, p = 200_000, 0.3
    out = dropout(torch.ones(count, dtype=dtype), p)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=5e-3, atol=0)
    spread = (p * (1 - p) * count) ** 0.5
    assert abs(len(kept) - (1 - p) * count) < 4 * spread
    # Each place is independent of its neighbor, and of the place that shares its random number.
    dropped = (out == 0).double()
    for distance in (1, 2, 3, 4):
        both = (dropped[distance:] * dropped[:-distance]).sum()
        assert abs(both - p * p * count) < 5 * (p * p * count) ** 0.5


@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_passes_where_the_value_passed(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(size, requires_grad=True)
    out = dropout(x, 0.25)
    out.sum().backward()
    passed = torch.where((out != 0), 1 / 0.75, 0.0)
    assert out.shape == x.shape
    torch.testing.assert_close(out, x * passed)
    torch.testing.assert_close(x.grad, passed)


def test_the_generator_decides() -> None:
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 1e-9])
def test_nothing_and_everything_is_dropped(p: float) -> None:
    x = torch.randn(50)
    torch.testing.assert_close(dropout(x, p), x * (p < 0.5))


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert not torch.equal(Dropout(0.5)(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_kernel_equals_its_plain_twin_in_values_and_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(16, requires_grad=True), torch.randn(16, requires_grad=True)
    pairs = (
        (
            lambda x: unbiased_layer_norm(x, weight, bias, 1e-6),
            lambda x: plain_unbiased_layer_norm(x, weight, bias, 1e-6),
        ),
        (lambda x: relu_dropout(x * 1, 0.3), lambda x: plain_relu_dropout(x, 0.3)),
    )
    for pair in pairs:
        found = []
        for function in pair:
            torch.manual_seed(1)  # the same values are dropped
            x = torch.linspace(-2, 3, 64).sin().view(4, 16).to(dtype).requires_grad_()
            out = function(x)
            assert out.dtype == dtype
            out.float().square().sum().backward()
            found.append((out, x.grad))
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(*found, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("size", [(16,), (7, 16), (2, 3, 16), (0, 16)])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_linear_map_equals_its_plain_twin_with_and_without_gradients(size: tuple[int, ...], bf16: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(16, 24), torch.randn(size)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out, plain = layer(x), plain_linear(x, layer.weight, layer.bias)
        assert (out.dtype, out.requires_grad) == (plain.dtype, gradients)
        torch.testing.assert_close(out, plain)


@torch.no_grad()
def test_a_linear_map_in_float64_or_without_a_bias_equals_its_plain_twin() -> None:
    for layer, x in (
        (Linear(16, 24).double(), torch.randn(7, 16).double()),
        (Linear(16, 24, bias=False), torch.randn(7, 16)),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(layer(x), plain_linear(x, layer.weight, layer.bias))


def test_a_linear_map_without_gradients_adds_its_bias_within_the_product() -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("needs a CPU on which oneDNN computes in bfloat16")
    layer, x = Linear(16, 24), torch.randn(7, 16)
    with torch.profiler.profile() as profile, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
    names = {event.key for event in profile.key_averages()}
    assert "mkldnn::_linear_pointwise" in names
    assert "aten::addmm" not in names


def test_dropout_equals_its_plain_twin_given_the_kept_values(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(8, 8, requires_grad=True)
    torch.manual_seed(0)
    plain = plain_dropout(x, 0.5)
    monkeypatch.setattr(fast_cpu, "draw_kept", lambda x, p: ((plain != 0).to(x.dtype), 1 / (1 - p)))
    fast = dropout(x, 0.5)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (fast, plain)))


@pytest.mark.parametrize("spread", [1.0, 3e-4, 0.0])
def test_a_norm_in_bfloat16_differs_by_rounding_also_for_rows_that_hardly_differ(spread: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(8, 64) * spread).bfloat16().requires_grad_()
    weight, bias = torch.randn(64), torch.randn(64)
    found = [norm(x, weight, bias, 1e-6) for norm in (unbiased_layer_norm, plain_unbiased_layer_norm)]
    torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)
    gradient = torch.autograd.grad(found[0].square().sum(), x)[0]
    assert gradient.isfinite().all()


def test_no_fused_kernel_runs_in_bfloat16_on_a_cpu() -> None:
    q = torch.randn(2, 2, 3, 4)
    for dtype, fused in ((torch.float32, True), (torch.bfloat16, False)):
        with torch.profiler.profile() as profile:
            attend(*[q.to(dtype)] * 3)
        assert any("scaled_dot_product" in event.key for event in profile.key_averages()) is fused
