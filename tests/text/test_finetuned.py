"""Text encoders inside models: of every family the same hidden states, gradients, and a way to disk and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coattn import models
from coattn.nn import PlainQuestionEncoder, RecurrentQuestionEncoder
from coattn.serialization.directory import load_directory, save_model
from coattn.serialization.registry import build, describe
from coattn.text.encoders import FinetunedQuestionEncoder, TextEncoder
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

Make = Callable[..., Path]
FAMILIES: dict[str, dict] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 40},
    "distilbert": {"hidden_dim": 8},
    "mpnet": {},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta-v2": {},
    "modernbert": {"layer_types": ["full_attention"] * 2},
    "t5": {"d_ff": 8, "d_kv": 4},
}
QUESTIONS = ["what is it ?", "is it red ?", "isn it ? please please", ""]
BERT = json.dumps(
    {
        "model_type": "bert",
        "vocab_size": 13,
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
)
PLAIN = {"question_dim": 8, "dim": 4}


def padded(tokenizer: PretrainedTokenizer, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rows = tokenizer.encode_all(QUESTIONS)
    width = max(map(len, rows)) + extra
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    return ids, torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]


@pytest.mark.parametrize("kind", FAMILIES)
def test_hidden_states_are_those_of_the_frozen_encoder(kind: str, make_text_encoder: Make, tmp_path: Path) -> None:
    folder = make_text_encoder(tmp_path / kind, kind, **FAMILIES[kind])
    encoder = FinetunedQuestionEncoder.pretrained(folder, PlainQuestionEncoder(**PLAIN)).eval()
    frozen = TextEncoder.load(folder)
    tokenizer = PretrainedTokenizer.load(folder)
    assert (encoder.num_words, encoder.question_dim, encoder.dim) == (len(tokenizer), None, 4)
    seen = []
    encoder.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for extra in (0, 5):
        encoder(*padded(tokenizer, extra))
    for question, near, far in zip(QUESTIONS, *seen, strict=True):
        rows = frozen.encode([question])[0]
        torch.testing.assert_close(near[: len(rows)], rows, rtol=0, atol=1e-5)
        torch.testing.assert_close(far[: len(rows)], rows, rtol=0, atol=1e-5)
        assert not far[len(rows) :].any()


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_parameter_is_trained_and_comes_back(kind: str, make_text_encoder: Make, tmp_path: Path) -> None:
    folder = make_text_encoder(tmp_path / kind, kind, **FAMILIES[kind])
    tokenizer = PretrainedTokenizer.load(folder)
    model = models.modular(
        question_dim=8, region_dim=6, num_answers=3, num_layers=1, dim=8, num_heads=2, embedding_dim=8
    )
    model.question_encoder = FinetunedQuestionEncoder.pretrained(folder, model.question_encoder, dropout=0.0)
    ids, mask = padded(tokenizer)
    inputs = (ids, torch.randn(4, 2, 6))
    masks = {"question_mask": mask, "region_mask": torch.ones(4, 2, dtype=torch.bool)}
    model(*inputs, **masks).logits.square().sum().backward()
    # Without a gradient, training on several devices would stop.
    idle = [name for name, one in model.question_encoder.transformer.named_parameters() if one.grad is None]
    assert not idle
    save_model(
        tmp_path / "model",
        model,
        answer_vocabulary=AnswerVocabulary(["a", "b", "c"]),
        question_vocabulary=tokenizer,
        metric="exact_match",
        activation="softmax",
        extractor={"name": "x", "settings": {}, "weights": None, "versions": {}},
        text_encoder=TextEncoder.load(folder).record,
    )
    shutil.rmtree(folder)
    directory = load_directory(tmp_path / "model")
    assert sorted(path.suffix for path in (tmp_path / "model" / "text_encoder").iterdir()) == [".json"] * 3
    assert directory.question_vocabulary.to_json() == tokenizer.to_json()
    torch.testing.assert_close(
        directory.model(*inputs, **masks).logits, model.eval()(*inputs, **masks).logits, rtol=0, atol=1e-6
    )
    assert describe(directory.model) == describe(model)


def test_a_row_without_a_token_gives_zeros() -> None:
    encoder = FinetunedQuestionEncoder(RecurrentQuestionEncoder(question_dim=8, dim=4), config=BERT)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    question = encoder(torch.ones(2, 3, dtype=torch.int64), mask)
    assert question.tokens.isfinite().all()
    assert not question.tokens[1].any()
    assert not question.summary[1].any()
    with pytest.raises(ValueError, match="expected token ids"):
        encoder(torch.zeros(2, 3, 8), mask)


def test_frozen_layers_and_dropout() -> None:
    def trained(frozen_layers: int) -> set[str]:
        encoder = FinetunedQuestionEncoder(PlainQuestionEncoder(**PLAIN), config=BERT, frozen_layers=frozen_layers)
        return {name.split(".weight")[0] for name, one in encoder.named_parameters() if one.requires_grad}

    everything, two, all_three = trained(0), trained(2), trained(3)
    assert "transformer.embeddings.word_embeddings" in everything - two
    assert {name.split("layer.")[1][0] for name in two if "layer." in name} == {"2"}
    assert not [name for name in all_three if name.startswith("transformer.")]
    assert "encoder.embedding.embed" in all_three
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=f"cannot freeze {wrong} layers of a text encoder with 3 layers"):
            trained(wrong)
    encoder = FinetunedQuestionEncoder(PlainQuestionEncoder(**PLAIN), config=BERT, dropout=0.25)
    drops = [one.p for one in encoder.transformer.modules() if isinstance(one, torch.nn.Dropout)]
    assert drops
    assert set(drops) == {0.25}


def changed(**values: object) -> str:
    return json.dumps({key: value for key, value in (json.loads(BERT) | values).items() if value is not None})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "is not a JSON object"),
        ("{", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        (changed(model_type=None), "no encoder of the type None"),
        (changed(model_type="evil"), "no encoder of the type 'evil'"),
        (changed(auto_map={"AutoModel": "evil.Model"}), "a config with auto_map is not that of a plain text encoder"),
        (changed(attn_implementation="somebody/kernel"), "a config with attn_implementation"),
        (changed(_attn_implementation="somebody/kernel"), "a config with _attn_implementation"),
        (changed(_name_or_path="somebody/model"), "a config with _name_or_path"),
        (changed(vision_config={"model_type": "vit"}), "a config with vision_config"),
        (changed(backbone="somebody/model", use_pretrained_backbone=True), "backbone"),
        (changed(num_hidden_layers=10**9), "cannot have the width"),
        (changed(vocab_size=10**12), "cannot have the width"),
        (changed(hidden_size="wide"), "text encoder"),
        (changed(hidden_size=9), "text encoder"),
        (changed(hidden_size=6), "have width 6, but the question encoder reads 8"),
        (changed(hidden_act="evil"), "cannot load this text encoder: 'evil'"),
        (json.dumps({"model_type": "vit", "vocab_size": 3, "hidden_size": 8}), "vit does not read text"),
        (json.dumps({"model_type": "clip"}), "text encoder"),
    ],
)
def test_configs_that_are_refused(config: str, message: str) -> None:
    brick = {"class": "FinetunedQuestionEncoder", "config": config, "frozen_layers": 0, "dropout": None}
    brick["encoder"] = {"class": "PlainQuestionEncoder", "num_words": None, **PLAIN, "num_positions": 0, "dropout": 0.0}
    with pytest.raises(ValueError, match=message) as caught:
        build(brick)
    assert "\n" not in str(caught.value)


def test_weights_of_another_encoder_are_refused(make_text_encoder: Make, tmp_path: Path) -> None:
    folder = make_text_encoder(tmp_path / "two layers")
    encoder = FinetunedQuestionEncoder(PlainQuestionEncoder(**PLAIN), config=BERT)
    with pytest.raises(ValueError, match="not the text encoder that the model is built for: Missing key"):
        encoder.load_weights(folder)


def test_a_tokenizer_with_more_ids_than_its_encoder(make_text_encoder: Make, tmp_path: Path) -> None:
    folder = make_text_encoder(tmp_path / "small", vocab_size=12)
    with pytest.raises(ValueError, match="the tokenizer has 13 ids, the encoder 12"):
        PretrainedTokenizer.load(folder)


def test_questions_are_cut_with_their_special_tokens(make_text_encoder: Make, tmp_path: Path) -> None:
    tokenizer = PretrainedTokenizer.load(make_text_encoder(tmp_path / "bert"))
    assert tokenizer.encode("what is it", max_tokens=4) == [2, 5, 6, 3]
    assert tokenizer.tokens("isn red", max_tokens=5) == ["[CLS]", "is", "##n", "red", "[SEP]"]
    assert tokenizer.encode_all([]) == []
    assert tokenizer.limit(None) == 32
    with pytest.raises(ValueError, match="max_tokens is 33, must be from 3 to 32"):
        tokenizer.limit(33)


def test_a_real_encoder(real_text_encoder: Path) -> None:
    encoder = FinetunedQuestionEncoder.pretrained(real_text_encoder, PlainQuestionEncoder(question_dim=384, dim=8))
    tokenizer = PretrainedTokenizer.load(real_text_encoder)
    again = PretrainedTokenizer.from_json(tokenizer.to_json(), "copy")
    question = "What is on the t-shirt?"
    assert again.tokens(question) == ["[CLS]", "what", "is", "on", "the", "t", "-", "shirt", "?", "[SEP]"]
    ids = torch.tensor([again.encode(question)])
    seen: list[torch.Tensor] = []
    encoder.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    encoder.eval()(ids, torch.ones_like(ids, dtype=torch.bool))
    expected = TextEncoder.load(real_text_encoder).encode([question])[0]
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-5)
