"""Generated answers: decoders and search."""

from __future__ import annotations

import itertools

import pytest
import test_model
import torch
from torch import Tensor, nn

from coattn import models
from coattn.nn import AdditiveAttention, LSTMDecoder, VQAGenerator
from coattn.nn.decoder import BOS, EOS, PAD, length_norm
from coattn.serialization.registry import build, describe

NUM_WORDS = 7  # of answers, specials included
KINDS = list(itertools.product(["lstm", "transformer"], ["additive", "dot", "none"]))
STACKS = [("parallel",), ("alternating",), ("dense",), ("modular",), ("question_self", "self_guided")]
STACKS += [("parallel", "dense", "modular")]


def generator(decoder: str = "lstm", attention: str = "additive", **sizes: object) -> VQAGenerator:
    torch.manual_seed(0)
    arguments = {"dim": 16, "num_heads": 2, "decoder_heads": 2, "decoder_layers": 2, "dropout": 0.0} | sizes
    model = models.generator(
        region_dim=6, num_answer_words=NUM_WORDS, num_words=20, decoder=decoder, attention=attention, **arguments
    )
    return model.eval()


def opinionated(decoder: str = "lstm", attention: str = "additive") -> VQAGenerator:
    """A generator with clear preferences among words; for a new one all are about equally likely."""
    model = generator(decoder, attention)
    model.decoder.classify.weight.data *= 8
    return model


def inputs() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    question_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    region_mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    return {
        "question": torch.randint(1, 20, (3, 4), generator=random) * question_mask,
        "regions": torch.randn(3, 5, 6, generator=random) * region_mask[..., None],
        "question_mask": question_mask,
        "region_mask": region_mask,
    }


def padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "question": nn.functional.pad(batch["question"], (0, 6)),
        "regions": nn.functional.pad(batch["regions"], (0, 0, 0, 9)),
        "question_mask": nn.functional.pad(batch["question_mask"], (0, 6)),
        "region_mask": nn.functional.pad(batch["region_mask"], (0, 9)),
    }


def some_tokens() -> Tensor:
    return torch.tensor([[BOS, 3, 4, 5, 3], [BOS, 6, 3, 0, 0], [BOS, 5, 0, 0, 0]])


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_word_by_word_equals_teacher_forcing(decoder: str, attention: str) -> None:
    model, tokens = generator(decoder, attention), some_tokens()
    logits = model(**inputs(), answer_tokens=tokens)
    assert logits.shape == (3, 5, NUM_WORDS)
    assert (logits[..., [PAD, BOS]].softmax(-1) < 1).all()
    assert (logits.softmax(-1)[..., [PAD, BOS]] == 0).all()
    pair, state, steps = model.encode(**inputs()), (), []
    for place in range(tokens.shape[1]):
        output = model.decoder(tokens[:, place : place + 1], pair.context, state)
        state = output.state
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_padding_maps_and_later_words_leave_the_logits_alone(decoder: str, attention: str) -> None:
    model, tokens = generator(decoder, attention), some_tokens()
    logits = model(**inputs(), answer_tokens=tokens)
    torch.testing.assert_close(model(**padded(inputs()), answer_tokens=tokens), logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model(**inputs(), answer_tokens=tokens[:, :2]), logits[:, :2], atol=1e-6, rtol=1e-6)
    mapped = model.decode(model.encode(**inputs()), tokens, need_weights=True)
    torch.testing.assert_close(mapped.logits, logits, atol=1e-6, rtol=1e-6)
    assert all(weights.shape[:3] == (3, 2, 5) for weights in mapped.maps.values())
    if attention == "none":
        assert mapped.maps == {}
    else:
        assert {"decoder.question", "decoder.regions"} <= mapped.maps.keys()
        assert ("decoder.layers.0.regions" in mapped.maps) == (decoder == "transformer")


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_gradients_reach_every_parameter(decoder: str, attention: str) -> None:
    model = generator(decoder, attention).double().train()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in inputs().items()}
    logits = model(**batch, answer_tokens=torch.tensor([[BOS, 3, 4], [BOS, 5, 6], [BOS, EOS, 3]]))
    logits[..., EOS:].log_softmax(-1)[..., 2].sum().backward()
    unseen = {"k_proj.bias"} if attention != "additive" else set()  # softmax does not see the bias of a key
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(tuple(unseen | {"k_proj.bias"} if "side_attn" not in name else unseen)):
            assert parameter.grad.abs().max() > 1e-12, name


def greedy(model: VQAGenerator, batch: dict[str, Tensor], max_length: int) -> list[list[int]]:
    """Word by word from teacher forcing alone, one question at a time."""
    answers = []
    for row in range(len(batch["question"])):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        tokens = [BOS]
        while tokens[-1] != EOS:
            logits = model(**single, answer_tokens=torch.tensor([tokens]))[0, -1]
            if len(tokens) == 1:
                logits[EOS] = -torch.inf
            tokens.append(EOS if len(tokens) == max_length + 1 else int(logits.argmax()))
        answers.append(tokens[1:])
    return answers


def words(tokens: Tensor) -> list[int]:
    return [token for token in tokens.tolist() if token != PAD]


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_one_beam_is_greedy_and_the_batch_is_its_rows(decoder: str, attention: str) -> None:
    model = opinionated(decoder, attention)
    written = model.generate(**inputs(), num_beams=1, max_length=6)
    assert [words(row[0]) for row in written.tokens] == greedy(model, inputs(), 6)
    again = model.generate(**padded(inputs()), num_beams=1, max_length=6)
    assert torch.equal(again.tokens, written.tokens)


def every_answer(max_length: int) -> list[list[int]]:
    letters = range(EOS + 1, NUM_WORDS)
    return [
        [*answer, EOS] for length in range(1, max_length + 1) for answer in itertools.product(letters, repeat=length)
    ]


def log_probabilities(model: VQAGenerator, single: dict[str, Tensor], answers: list[list[int]]) -> list[float]:
    """The log-probabilities of whole answers to one question, by teacher forcing."""
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor([BOS, *answer]) for answer in answers], batch_first=True)
    batch = {name: value.expand(len(answers), *value.shape[1:]) for name, value in single.items()}
    log_probs = model(**batch, answer_tokens=tokens[:, :-1]).log_softmax(-1)
    chosen = log_probs.gather(2, tokens[:, 1:, None])[..., 0]
    return (chosen * (tokens[:, 1:] != PAD)).sum(1).tolist()


@pytest.mark.parametrize(("decoder", "attention"), [("lstm", "additive"), ("transformer", "dot")])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_what_exhaustive_search_finds(decoder: str, attention: str, length_penalty: float) -> None:
    model, batch = opinionated(decoder, attention), inputs()
    answers = every_answer(3)
    wide = model.generate(**batch, num_beams=len(answers), max_length=3, length_penalty=length_penalty)
    for row in range(3):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        exact = log_probabilities(model, single, answers)
        scores = [
            total / length_norm(len(answer), length_penalty) for total, answer in zip(exact, answers, strict=True)
        ]
        order = sorted(range(len(answers)), key=lambda place: -scores[place])
        torch.testing.assert_close(
            wide.scores[row], torch.tensor([scores[place] for place in order]), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            wide.log_probs[row], torch.tensor([exact[place] for place in order]), atol=1e-4, rtol=0
        )
        assert sorted(map(words, wide.tokens[row])) == sorted(answers)
        assert words(wide.tokens[row, 0]) == answers[order[0]]


def test_what_the_beam_scores_is_what_the_model_scores() -> None:
    model, batch = opinionated("transformer", "dot"), inputs()
    written = model.generate(**batch, num_beams=4, max_length=5)
    for row in range(3):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        alone = model.generate(**single, num_beams=4, max_length=5)
        assert [words(answer) for answer in alone.tokens[0]] == [words(answer) for answer in written.tokens[row]]
        answers = [words(answer) for answer in written.tokens[row]]
        totals = log_probabilities(model, single, answers)
        norms = [length_norm(len(answer), 0.6) for answer in answers]
        scores = torch.tensor(totals) / torch.tensor(norms)
        torch.testing.assert_close(written.scores[row], scores, atol=1e-5, rtol=0)
        assert (written.scores[row].diff() <= 0).all()


def test_more_beams_than_answers_leave_places_empty() -> None:
    model = generator()
    written = model.generate(**inputs(), num_beams=9, max_length=1)
    assert written.tokens.shape == (3, 9, 2)
    assert (written.scores > -torch.inf).sum(1).tolist() == [NUM_WORDS - 3] * 3
    assert (written.tokens[:, NUM_WORDS - 3 :] == PAD).all()


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_each_written_word_has_a_map(decoder: str) -> None:
    model = generator(decoder, "additive")
    written = model.generate(**inputs(), num_beams=3, max_length=6, need_weights=True)
    plain = model.generate(**inputs(), num_beams=3, max_length=6)
    assert torch.equal(written.tokens, plain.tokens)
    assert plain.maps == {}
    real = written.tokens[:, 0] != PAD
    for name, width in (("decoder.question", 4), ("decoder.regions", 5)):
        weights = written.maps[name]
        assert weights.shape == (3, 2, written.tokens.shape[2], width)
        torch.testing.assert_close(weights.sum(-1), real[:, None].expand(-1, 2, -1).float())
    assert (written.maps["decoder.regions"][0, ..., 2:] == 0).all(), "padding is looked at"
    assert "layers.0.question_to_question" in written.maps


@pytest.mark.parametrize("layers", STACKS, ids="+".join)
def test_every_stack_can_be_read_by_a_decoder(layers: tuple[str, ...]) -> None:
    model, batch = generator(layers=layers), inputs()
    before = model(**batch, answer_tokens=some_tokens())
    for change in ({"question": batch["question"] * 2 % 19}, {"regions": batch["regions"] * 2}):
        assert not torch.allclose(model(**batch | change, answer_tokens=some_tokens()), before)


@pytest.mark.parametrize("name", models.PRESETS)
def test_a_decoder_stands_behind_the_parts_of_every_preset(name: str) -> None:
    model, batch = test_model.build(name).eval(), test_model.inputs()
    tokens = model.question_encoder(batch["question"], batch["question_mask"])
    regions = model.region_encoder(batch["regions"], batch["region_mask"], batch["boxes"], None)
    attended = model.coattention(tokens, regions, batch["question_mask"], batch["region_mask"], need_weights=False)
    writer = VQAGenerator(
        model.question_encoder,
        region_encoder=model.region_encoder,
        coattention=model.coattention,
        decoder=LSTMDecoder(
            attended.question.shape[2],
            attended.regions.shape[2],
            NUM_WORDS,
            dim=8,
            summary_dim=tokens.summary.shape[1],
        ),
    ).eval()
    logits = writer(**batch, answer_tokens=some_tokens())
    longer = padded(batch) | {"boxes": nn.functional.pad(batch["boxes"], (0, 0, 0, 9))}
    torch.testing.assert_close(writer(**longer, answer_tokens=some_tokens()), logits, atol=1e-6, rtol=1e-6)
    maps = writer.generate(**batch, need_weights=True).maps
    assert maps["decoder.regions"].shape[3] == 5


def test_nothing_to_look_at_gives_finite_answers() -> None:
    model, batch = generator("transformer", "additive"), inputs()
    batch["region_mask"][0] = False
    batch["question_mask"][1] = False
    written = model.generate(**batch, num_beams=2, max_length=3, need_weights=True)
    assert written.scores.isfinite().all()
    assert all(weights.isfinite().all() for weights in written.maps.values())


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_lists_that_training_never_had_are_written(decoder: str) -> None:
    """Each image has two of eight things, which the answer lists; training never has four of the 28 pairs."""
    pairs = torch.tensor(list(itertools.combinations(range(8), 2)))
    unseen = torch.tensor([2, 9, 16, 21])
    seen = torch.tensor([place for place in range(28) if place not in unseen])
    torch.manual_seed(0)
    model = models.generator(
        region_dim=8, num_answer_words=11, num_words=3, decoder=decoder, dim=32, standardized=False, dropout=0.1
    )

    def batch(chosen: Tensor) -> dict[str, Tensor]:
        return {
            "question": torch.full((len(chosen), 2), 2),
            "question_mask": torch.ones(len(chosen), 2, dtype=torch.bool),
            "regions": nn.functional.one_hot(pairs[chosen], 8).float(),
            "region_mask": torch.ones(len(chosen), 2, dtype=torch.bool),
        }

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    answers = nn.functional.pad(pairs + EOS + 1, (0, 1), value=EOS)
    for _ in range(150):
        chosen = seen[torch.randint(len(seen), (32,))]
        begun = nn.functional.pad(answers[chosen, :-1], (1, 0), value=BOS)
        logits = model(**batch(chosen), answer_tokens=begun)[..., EOS:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), (answers[chosen] - EOS).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    written = model.eval().generate(**batch(unseen)).tokens[:, 0]
    assert (written[:, :3] == answers[unseen]).all(1).sum() >= 3


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_a_generator_is_described_and_built_again(decoder: str, attention: str) -> None:
    model = generator(decoder, attention)
    again = build(describe(model))
    assert isinstance(again, VQAGenerator)
    again.load_state_dict(model.state_dict())
    again.eval()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    logits = model(**inputs(), answer_tokens=some_tokens())
    torch.testing.assert_close(again(**inputs(), answer_tokens=some_tokens()), logits)


def test_additive_scores_are_those_of_the_paper() -> None:
    attention = AdditiveAttention(4, key_dim=3)
    queries, source = torch.randn(1, 2, 4), torch.randn(1, 5, 3)
    out, weights = attention(queries, source, torch.tensor([[True] * 4 + [False]]), need_weights=True)
    energies = torch.stack(
        [
            attention.score[0] @ torch.tanh(attention.q_proj(queries[0, 1]) + attention.k_proj(source[0, j]))
            for j in range(4)
        ]
    )
    torch.testing.assert_close(weights[0, 0, 1, :4], energies.softmax(0))
    assert weights[0, 0, 1, 4] == 0
    torch.testing.assert_close(out, attention(queries, source[:, :4])[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generator(attention="cosine"), "attention must be one of dot, additive, none, got 'cosine'"),
        (lambda: generator("gru"), "decoder must be one of lstm, transformer, got 'gru'"),
        (lambda: generator(decoder_heads=3), "num_heads=3 and width 16"),
        (lambda: generator().generate(**inputs(), num_beams=0), "num_beams must be at least 1, got 0"),
        (lambda: generator().generate(**inputs(), max_length=0), "max_length must be at least 1, got 0"),
        (lambda: generator().encode(**inputs() | {"region_mask": torch.ones(3, 5)}), "region_mask must be bool"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
