import pytest
import torch
from torch import nn

from coattn.models.dcn import SkipRecurrentQuestionEncoder
from coattn.nn import PlainQuestionEncoder, RecurrentQuestionEncoder, RegionEncoder
from coattn.nn.layers import UnbiasedLayerNorm, reverse_padded
from coattn.nn.recurrence import Recurrences

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])


def recurrent(cell: str, bidirectional: bool, num_layers: int = 2) -> RecurrentQuestionEncoder:
    torch.manual_seed(0)
    return RecurrentQuestionEncoder(
        num_words=10, embedding_dim=5, dim=6, cell=cell, bidirectional=bidirectional, num_layers=num_layers
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrence_equals_packed_sequences(cell: str, bidirectional: bool) -> None:
    encoder = recurrent(cell, bidirectional)
    encoded = encoder(IDS[:2], MASK[:2])
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    reference = kind(5, 3 if bidirectional else 6, 2, batch_first=True, bidirectional=bidirectional)
    state = {}
    for layer, directions in enumerate(encoder.recurrences):
        for direction, module in enumerate(directions):  # type: ignore[arg-type]
            suffix = "_reverse" if direction else ""
            for name, value in module.state_dict().items():
                state[name.replace("_l0", f"_l{layer}{suffix}")] = value
    reference.load_state_dict(state)
    packed = nn.utils.rnn.pack_padded_sequence(encoder.embedding(IDS[:2], MASK[:2]), torch.tensor([4, 2]), True)
    outputs, last = reference(packed)
    tokens, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    hidden = last[0] if cell == "lstm" else last
    torch.testing.assert_close(encoded.tokens, tokens, atol=1e-6, rtol=0)
    summary = torch.cat(tuple(hidden[-2:]), -1) if bidirectional else hidden[-1]
    torch.testing.assert_close(encoded.summary, summary, atol=1e-6, rtol=0)


def test_learned_starts_equal_packed_sequences_and_learn() -> None:
    torch.manual_seed(0)
    encoder = SkipRecurrentQuestionEncoder(question_dim=5, hidden_dim=6, dim=7)
    embedded = torch.randn(3, 4, 5) * MASK[..., None]
    reference = nn.LSTM(5, 3, 2, batch_first=True, bidirectional=True)
    state = {
        name.replace("_l0", f"_l{layer}{'_reverse' if direction else ''}"): value
        for layer, directions in enumerate(encoder.recurrences)
        for direction, module in enumerate(directions)  # type: ignore[arg-type]
        for name, value in module.state_dict().items()
    }
    reference.load_state_dict(state)
    start = encoder.recurrences.start
    assert start is not None
    hidden, cells = start[:, None].expand(-1, 2, -1).contiguous().chunk(2)  # the third question is empty
    packed = nn.utils.rnn.pack_padded_sequence(embedded[:2], torch.tensor([4, 2]), True)
    states, _ = nn.utils.rnn.pad_packed_sequence(reference(packed, (hidden, cells))[0], batch_first=True)
    expected = encoder.merge(torch.cat((embedded[:2], states), -1)) * MASK[:2, :, None]
    encoded = encoder(embedded, MASK)
    torch.testing.assert_close(encoded.tokens[:2], expected, atol=1e-6, rtol=0)
    assert (encoded.tokens[2] == 0).all()
    encoded.tokens.sum().backward()
    assert start.grad is not None
    assert (start.grad.abs().sum(1) > 0).all()


def test_a_gru_starts_from_learned_states_too() -> None:
    states, _ = Recurrences(5, 6, cell="gru", bidirectional=True, learned_start=True)(torch.zeros(3, 4, 5), MASK)
    assert (states[0] != 0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_is_invisible_and_an_empty_row_is_zero(bidirectional: bool) -> None:
    encoder = recurrent("lstm", bidirectional)
    encoded = encoder(IDS, MASK)
    longer = encoder(nn.functional.pad(IDS, (0, 3), value=9), nn.functional.pad(MASK, (0, 3)))
    torch.testing.assert_close(longer.tokens[:, :4], encoded.tokens, atol=1e-6, rtol=0)
    torch.testing.assert_close(longer.summary, encoded.summary, atol=1e-6, rtol=0)
    assert (encoded.tokens[~MASK] == 0).all()
    assert (encoded.summary[2] == 0).all()


def test_given_embeddings_in_place_of_ids() -> None:
    torch.manual_seed(0)
    for encoder in (
        PlainQuestionEncoder(question_dim=7, dim=6, num_positions=4),
        RecurrentQuestionEncoder(question_dim=7, embedding_dim=5, dim=6),
    ):
        embedded = torch.randn(3, 4, 7) * MASK[..., None]
        assert encoder(embedded, MASK).tokens.shape == (3, 4, 6)
        assert encoder(embedded.half(), MASK).tokens.dtype == torch.float32
        with pytest.raises(ValueError, match=r"token embeddings \(B, T, 7\), got torch.int64"):
            encoder(IDS, MASK)
    with pytest.raises(ValueError, match="token ids"):
        recurrent("gru", False)(torch.randn(3, 4, 7), MASK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 6}, "either num_words"),
        ({"dim": 6, "num_words": 3, "question_dim": 3}, "either num_words"),
        ({"dim": 6, "num_words": 3, "cell": "rnn"}, "lstm, gru"),
        ({"dim": 5, "num_words": 3, "bidirectional": True}, "even dim, got 5"),
    ],
)
def test_impossible_encoders_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentQuestionEncoder(**arguments)  # type: ignore[arg-type]


def test_reverse_padded_is_its_own_inverse() -> None:
    x = torch.arange(8.0).reshape(2, 4, 1)
    lengths = torch.tensor([4, 2])
    once = reverse_padded(x, lengths)
    assert once.squeeze(-1).tolist() == [[3, 2, 1, 0], [5, 4, 6, 7]]
    assert torch.equal(reverse_padded(once, lengths), x)


def test_unbiased_layer_norm() -> None:
    x = torch.randn(4, 16, dtype=torch.float64)
    norm = UnbiasedLayerNorm(16).double()
    torch.testing.assert_close(norm(x), (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6))
    constant = torch.ones(2, 16, dtype=torch.float64, requires_grad=True)
    norm(constant).sum().backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()


@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_unbiased_layer_norm_knows_its_own_gradient(eps: float) -> None:
    torch.manual_seed(0)
    norm = UnbiasedLayerNorm(5, eps=eps).double()
    inputs = [(torch.randn(size, dtype=torch.float64) + 0.5).requires_grad_() for size in ((2, 3, 5), (5,), (5,))]

    def formula(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) + bias

    def normalised(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    torch.testing.assert_close(normalised(*inputs), formula(*inputs))
    assert torch.autograd.gradcheck(normalised, inputs)


def test_unbiased_layer_norm_keeps_half_precision_but_computes_in_float32() -> None:
    torch.manual_seed(0)
    x = (3 + 0.1 * torch.randn(4, 64)).bfloat16()
    norm = UnbiasedLayerNorm(64)
    out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=2**-8, atol=0)


def test_regions_are_standardized_located_and_masked() -> None:
    torch.manual_seed(0)
    encoder = RegionEncoder(3, dim=4, boxes=True, num_positions=5, standardized=True)
    regions, mask = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    boxes = torch.rand(2, 5, 4)
    before = encoder(regions, mask, boxes)
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, 4.0])
    encoder.standardize(mean, std)
    raised = regions * torch.tensor([2.0, 1.0, 4.0]) + mean
    torch.testing.assert_close(encoder(raised, mask, boxes), before, atol=1e-5, rtol=0)
    assert (before[~mask] == 0).all()
    assert not torch.allclose(encoder(raised, mask, boxes.flip(1)), before)
    assert set(encoder.state_dict()) >= {"feature_mean", "feature_std"}
    with pytest.raises(ValueError, match="pass boxes"):
        encoder(regions, mask)
    with pytest.raises(ValueError, match="num_positions=5"):
        encoder(torch.randn(2, 6, 3), torch.ones(2, 6, dtype=torch.bool), torch.rand(2, 6, 4))
    with pytest.raises(ValueError, match="width 3"):
        encoder(torch.randn(2, 5, 4), mask, boxes)
    with pytest.raises(ValueError, match="standardized=False"):
        RegionEncoder(3, dim=4).standardize(mean, std)


def test_feature_dropout_drops_features_in_training_alone() -> None:
    encoder = RegionEncoder(50, dim=50, feature_dropout=0.5)
    with torch.no_grad():
        encoder.features.weight.copy_(torch.eye(50))
        encoder.features.bias.zero_()
    regions, mask = torch.rand(2, 3, 50) + 1, torch.ones(2, 3, dtype=torch.bool)
    dropped = encoder.train()(regions, mask)
    assert torch.all((dropped == 0) | (dropped == 2 * regions))
    assert 0 < int((dropped == 0).sum()) < dropped.numel()
    assert torch.equal(encoder.eval()(regions, mask), regions)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrences_are_exact_in_mixed_precision_on_a_gpu(cell: str) -> None:
    torch.manual_seed(0)
    recurrences = Recurrences(6, 8, cell=cell).cuda()
    x = (70_000 * torch.randn(3, 5, 6)).cuda()  # float16 ends at 65,504
    mask = torch.ones(3, 5, dtype=torch.bool, device="cuda")
    exact, _ = recurrences(x, mask)
    with torch.autocast("cuda", torch.bfloat16):
        states, _ = recurrences(x, mask)
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states.float(), exact, rtol=2**-7, atol=1e-3)
