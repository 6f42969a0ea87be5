import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coattn.nn import AdditiveAttention, MultiHeadAttention, attend
from coattn.nn.attention import SHORT_ROW, masked_softmax, merge_heads, split_heads
from coattn.nn.layers import lengths_to_mask
from coattn.nn.packing import pack


def _inputs(mask_shape: tuple[int, ...] = (2, 5)) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, generator=generator) for n in (6, 5, 5))
    mask = torch.rand(mask_shape, generator=generator) > 0.4
    return q, k, v, mask


@pytest.mark.parametrize("mask_shape", [(2, 5), (2, 1, 1, 5), (2, 1, 6, 5), (2, 3, 6, 5)])
def test_map_path_equals_fused_path(mask_shape: tuple[int, ...]) -> None:
    q, k, v, mask = _inputs(mask_shape)
    fused, none = attend(q, k, v, mask)
    explicit, weights = attend(q, k, v, mask, need_weights=True)
    assert none is None
    assert weights is not None
    torch.testing.assert_close(explicit, fused, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights @ v, fused, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_keys", [1, 5, SHORT_ROW - 1, SHORT_ROW])
def test_map_path_equals_the_path_without_maps_in_bfloat16(num_keys: int) -> None:
    found = []
    for need_weights in (False, True):
        torch.manual_seed(0)
        q, k, v = (torch.randn(3, 2, n, 8).bfloat16().requires_grad_() for n in (6, num_keys, num_keys))
        mask = torch.arange(num_keys) < torch.tensor([[0], [(num_keys + 1) // 2], [num_keys]])
        out, _ = attend(q, k, v, mask, need_weights=need_weights)
        out.float().square().sum().backward()
        found.append([out, q.grad, k.grad, v.grad])
    assert (found[0][0][0] == 0).all()  # the row without keys
    torch.testing.assert_close(*found, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("num_keys", [SHORT_ROW - 1, SHORT_ROW])
def test_dropout_without_maps_drops_single_weights_and_scales_the_others(num_keys: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 6, 8), torch.randn(2, 3, num_keys, 8)
    mask = torch.arange(num_keys) < torch.tensor([[num_keys - 1], [num_keys]])
    v = torch.eye(num_keys).expand(2, 3, -1, -1)  # the output is the dropped map
    dropped, _ = attend(q, k, v, mask, dropout_p=0.5)
    _, weights = attend(q, k, v, mask, need_weights=True)
    kept = dropped != 0
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(dropped[kept], 2 * weights[kept], rtol=1e-4, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_keys", [14, 64, 100])
def test_the_fused_kernel_of_a_gpu_computes_the_same(num_keys: int, dtype: torch.dtype) -> None:
    found = []
    for device, need_weights in (("cuda", False), ("cpu", True)):
        torch.manual_seed(0)
        q, k, v = (torch.randn(3, 2, n, 64).to(dtype).to(device).requires_grad_() for n in (14, num_keys, num_keys))
        mask = (torch.arange(num_keys) < torch.tensor([[0], [num_keys // 2], [num_keys]])).to(device)
        out, _ = attend(q, k, v, mask, need_weights=need_weights)
        out.float().square().sum().backward()
        found.append([x.float().cpu() for x in (out, q.grad, k.grad, v.grad)])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for fused, explicit in zip(*found, strict=True):
        torch.testing.assert_close(fused, explicit, atol=tolerance, rtol=tolerance)
    q, k, v = (torch.randn(3, 2, n, 64, dtype=dtype, device="cuda") for n in (14, num_keys, num_keys))
    with torch.profiler.profile() as profile:
        attend(q, k, v, torch.ones(3, num_keys, dtype=torch.bool, device="cuda"))
    assert any("efficient_attention" in event.key for event in profile.key_averages()), "no fused kernel ran"


@pytest.mark.parametrize("need_weights", [False, True])
def test_row_without_real_keys_is_zero_with_finite_gradients(need_weights: bool) -> None:
    q, k, v, mask = _inputs()
    mask[0] = False
    for x in (q, k, v):
        x.requires_grad_()
    out, weights = attend(q, k, v, mask, need_weights=need_weights)
    assert (out[0] == 0).all()
    assert weights is None or (weights[0] == 0).all()
    out.square().sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert (x.grad[0] == 0).all()
        assert (x.grad[1] != 0).any()


def test_dropout_drops_and_the_map_is_the_one_before_dropout() -> None:
    q, k, v, mask = _inputs()
    plain, weights = attend(q, k, v, mask, need_weights=True)
    dropped, same = attend(q, k, v, mask, need_weights=True, dropout_p=0.5)
    assert not torch.equal(plain, dropped)
    torch.testing.assert_close(weights, same, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_masked_softmax_in_every_precision(dtype: torch.dtype) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=dtype)
    weights = masked_softmax(scores, torch.tensor([[True, True, False], [False, False, False]]))
    assert weights.dtype == dtype
    assert weights[0, 2] == 0
    assert (weights[1] == 0).all()
    torch.testing.assert_close(weights[0, :2].float(), torch.tensor([1.0, 2.0]).softmax(0), atol=5e-3, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**20))
def test_masked_keys_never_matter(num_queries: int, num_keys: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, 2, num_queries, 4, generator=generator)
    k = torch.randn(1, 2, num_keys, 4, generator=generator)
    v = torch.randn(1, 2, num_keys, 3, generator=generator)
    mask = torch.rand(1, num_keys, generator=generator) > 0.5
    before = attend(q, k, v, mask)[0]
    k[:, :, ~mask[0]] = 1e4
    v[:, :, ~mask[0]] = -1e4
    torch.testing.assert_close(attend(q, k, v, mask)[0], before, atol=1e-6, rtol=0)


def test_a_mask_of_floats_is_refused() -> None:
    q, k, v, mask = _inputs()
    with pytest.raises(ValueError, match=r"bool.*float32"):
        attend(q, k, v, mask.float())


def test_multi_head_attention_between_widths() -> None:
    attention = MultiHeadAttention(8, key_dim=6, num_heads=2)
    out, weights = attention(torch.randn(2, 3, 8), torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool))
    assert out.shape == (2, 3, 8)
    assert weights is None
    with pytest.raises(ValueError, match=r"num_heads=3 and width 8"):
        MultiHeadAttention(8, num_heads=3)


KINDS = {"dot": MultiHeadAttention, "additive": AdditiveAttention}
MASKS = {2: (2, 5), 4: (2, 1, 3, 5)}


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("dim", [None, *MASKS])
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_takes_the_same_masks_and_bias(kind: str, dim: int | None, need_weights: bool) -> None:
    torch.manual_seed(0)
    attention = KINDS[kind](8, key_dim=6, num_heads=2).eval()
    queries, source, bias = torch.randn(2, 3, 8), torch.randn(2, 5, 6), torch.randn(2, 2, 3, 5)
    mask = None if dim is None else torch.rand(MASKS[dim]) > 0.4
    options = {"bias": bias, "need_weights": need_weights}
    out, weights = attention(queries, source, mask, **options)
    cached, cached_weights = attention.attend_to(
        attention.project_q(queries), *attention.project_kv(source), mask, **options
    )
    assert torch.equal(out, cached)
    assert (weights is None) == (cached_weights is None) == (not need_weights)
    # By hand, from the projections.
    q, k, v = (
        split_heads(projected, 2)
        for projected in (attention.q_proj(queries), attention.k_proj(source), attention.v_proj(source))
    )
    scores = attention.scores(q, k)
    scores = (q @ k.mT / 2 if scores is None else scores) + bias
    real = None if mask is None else mask.view(2, 1, -1, 5)
    expected = masked_softmax(scores, real)
    torch.testing.assert_close(out, attention.out_proj(merge_heads(expected @ v)))
    if weights is not None:
        torch.testing.assert_close(weights, expected)
    assert kind == "dot" or attention.scores(q, k).shape == (2, 2, 3, 5)


@pytest.mark.parametrize("method", ["forward", "attend_to"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_refuses_a_mask_of_floats_or_of_three_dimensions(kind: str, method: str) -> None:
    attention = KINDS[kind](8, num_heads=2)
    x = torch.randn(2, 5, 8)
    inputs = (x, x) if method == "forward" else (attention.project_q(x), *attention.project_kv(x))
    for mask, message in ((torch.ones(2, 5), "float32"), (torch.ones(2, 5, 5, dtype=torch.bool), r"\(2, 5, 5\)")):
        with pytest.raises(ValueError, match=f"mask must be bool.*{message}"):
            getattr(attention, method)(*inputs, mask)


@pytest.mark.parametrize("packed", [False, True])
def test_projections_moved_to_few_keys_change_nothing(packed: bool) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, key_dim=6, num_heads=2).double()
    queries, source = torch.randn(4, 5, 8).double(), torch.randn(4, 3, 6).double()
    query_mask, mask = lengths_to_mask(torch.tensor([5, 2, 4, 0]), 5), lengths_to_mask(torch.tensor([2, 0, 3, 1]), 3)
    if packed:
        queries, source = pack(queries, query_mask), pack(source, mask)
    parts = [queries.requires_grad_(), source.requires_grad_(), *attention.parameters()]

    def run(output: torch.Tensor) -> list[torch.Tensor]:
        return [output, *torch.autograd.grad(output.square().sum(), parts)]

    expected = run(attention(queries, source, mask, query_mask=query_mask)[0])
    torch.testing.assert_close(run(attention.attend_few_keys(queries, source, mask, query_mask)), expected)


def test_few_keys_are_those_of_questions_about_many_regions_in_bfloat16() -> None:
    attention = MultiHeadAttention(512, num_heads=8).eval()
    regions, question, mask = torch.randn(2, 100, 512), torch.randn(2, 14, 512), torch.ones(2, 14, dtype=torch.bool)
    assert not attention.has_few_keys(regions, question, mask)
    expected, _ = attention(regions, question, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention.has_few_keys(regions, question, mask)
        assert not attention.has_few_keys(regions[:, :40], question, mask)
        assert not attention.has_few_keys(question, regions, torch.ones(2, 100, dtype=torch.bool))
        assert not AdditiveAttention(512, num_heads=8).has_few_keys(regions, question, mask)
        found, _ = attention(regions, question, mask)
        adapted = copy.deepcopy(attention)
        adapted.q_proj = torch.nn.Sequential(adapted.q_proj)
        assert not adapted.has_few_keys(regions, question, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.01)


def test_a_batch_of_empty_questions_has_no_few_keys() -> None:
    attention = MultiHeadAttention(512, num_heads=8).eval()
    regions, mask = torch.randn(2, 60, 512), torch.zeros(2, 14, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attention(regions, pack(torch.randn(2, 14, 512), mask), mask)
    torch.testing.assert_close(found, attention.out_proj.bias.bfloat16().expand(2, 60, -1))


def test_gradcheck() -> None:
    q, k, v, mask = _inputs()
    mask[0] = False
    inputs = tuple(x[:, :1, :2].double().requires_grad_() for x in (q, k, v))
    for need_weights in (False, True):
        assert torch.autograd.gradcheck(
            lambda q, k, v, need=need_weights: attend(q, k, v, mask[:, :2], need_weights=need)[0], inputs
        )


def test_a_bias_is_added_to_the_scores_and_gets_a_gradient() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 4, 5) for _ in range(3))
    bias = torch.randn(2, 3, 4, 4, requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    out, weights = attend(q, k, v, mask, bias=bias, need_weights=True)
    fused, none = attend(q, k, v, mask, bias=bias)
    assert none is None
    assert weights is not None
    torch.testing.assert_close(fused, out)
    scores = q @ k.transpose(-2, -1) / 5**0.5 + bias
    torch.testing.assert_close(weights[0, :, :, :2], scores[0, :, :, :2].softmax(-1))
    assert not weights[1].any()
    out.square().sum().backward()
    assert bias.grad is not None
    assert bias.grad[0, :, :, :2].abs().min() > 0
    assert not bias.grad[:, :, :, 2:].any()
