from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from saved_models import ANSWER_WORDS, ANSWERS, RECORD, WORDS, logits, make, save, save_writer, writer

from coattn import models
from coattn.nn import VQAGenerator, VQAModel
from coattn.serialization.directory import load, load_directory
from coattn.serialization.files import WEIGHTS
from coattn.serialization.registry import BRICKS, build, describe
from coattn.text.answer_words import AnswerWords


@pytest.mark.parametrize("preset", models.PRESETS)
def test_a_model_of_each_preset_comes_back_the_same(preset: str, tmp_path: Path) -> None:
    model = make(preset).eval()
    loaded = load(save(tmp_path / "model", model))
    assert not loaded.training
    assert describe(loaded) == describe(model)
    assert torch.equal(logits(loaded), logits(model))


def test_a_model_on_question_embeddings_comes_back_the_same(tmp_path: Path) -> None:
    model = make(question_dim=8).eval()
    save(tmp_path / "model", model, question_vocabulary=None, text_encoder=RECORD)
    directory = load_directory(tmp_path / "model")
    assert torch.equal(logits(directory.model), logits(model))
    assert directory.question_vocabulary is None
    assert directory.text_encoder == RECORD


@pytest.mark.parametrize("order", [None, [0, 0, 1, 0]])
def test_stacks_keep_their_order(order: list[int] | None, tmp_path: Path) -> None:
    model = make("parallel")
    width = model.head.question_dim
    layers = [models.make_layer(n, width, width, num_heads=2, ffn_dim=8, dropout=0.1) for n in ("dense", "parallel")]
    model.coattention = BRICKS["CoAttentionStack"](layers, order=order)
    model.eval()
    assert torch.equal(logits(load(save(tmp_path / "model", model))), logits(model))


def test_everything_beside_the_weights_comes_back(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "tokenizer.json").write_text("{}")
    folder = save(
        tmp_path / "model",
        max_tokens=14,
        extractor_weights=tmp_path / "weights.safetensors",
        text_encoder_folder=tmp_path / "encoder",
        extra={"scores": {"val": 61.2}},
    )
    directory = load_directory(folder)
    assert directory.question_vocabulary is not None
    assert directory.question_vocabulary.words == WORDS.words
    assert directory.answer_vocabulary.answers == ANSWERS.answers
    assert (directory.metric, directory.activation, directory.temperature) == ("exact_match", "softmax", 1.5)
    assert (directory.max_tokens, directory.extractor, directory.text_encoder) == (14, RECORD, None)
    assert directory.extra == {"scores": {"val": 61.2}}
    assert directory.extractor_weights is not None
    assert directory.extractor_weights.read_bytes() == b"weights"
    assert directory.text_encoder_folder is not None
    assert (directory.text_encoder_folder / "tokenizer.json").read_text() == "{}"
    assert (folder / "README.md").read_text() == "# A model\n"


def test_standardization_and_training_survive(tmp_path: Path) -> None:
    model = make()
    model.region_encoder = BRICKS["RegionEncoder"](6, dim=model.region_encoder.dim, standardized=True)
    model.region_encoder.standardize(torch.full((6,), 3.0), torch.full((6,), 2.0))
    loaded = load(save(tmp_path / "model", model.eval()))
    assert torch.equal(logits(loaded), logits(model))
    before = (tmp_path / "model" / WEIGHTS).read_bytes()
    with torch.no_grad():
        for parameter in loaded.parameters():
            assert parameter.requires_grad
            parameter.add_(1)  # the file behind the tensors must not change with them
    assert (tmp_path / "model" / WEIGHTS).read_bytes() == before


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


def test_saved_as_float32_whatever_it_was_trained_in(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make().bfloat16())
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS).values()} == {torch.float32}
    load(folder)


# A text encoder precedes the question encoder of any preset; tests/text/test_finetuned.py has it.
@pytest.mark.parametrize("name", sorted(set(BRICKS) - {"FinetunedQuestionEncoder"}))
def test_each_brick_is_used_by_a_preset(name: str) -> None:
    made: list[VQAModel | VQAGenerator] = [make(preset) for preset in models.PRESETS]
    made += [writer(decoder=decoder) for decoder in ("lstm", "transformer")]
    sizes = {"region_dim": 6, "num_answers": 3, "num_words": 6}
    made += [models.modular(**sizes, question_encoder="none")]
    made += [models.mcan_small(**sizes, geometry_dim=4, faithful=True, num_layers=1, dim=8)]
    assert any(name in json.dumps(describe(model)) for model in made)


def test_build_is_the_inverse_of_describe() -> None:
    model = make("stack")
    again = build(json.loads(json.dumps(describe(model))))
    assert describe(again) == describe(model)
    assert [(n, p.shape) for n, p in again.named_parameters()] == [(n, p.shape) for n, p in model.named_parameters()]


def test_loading_does_not_import_the_compiler(tmp_path: Path) -> None:
    """Random initialization on the meta device would, which takes longer than everything else of a first answer."""
    sizes = {"dim": 8, "region_dim": 6, "num_words": len(WORDS), "num_answers": len(ANSWERS)}
    layers = ["parallel", "alternating", "dense", "modular"]
    folder = save(tmp_path / "model", models.stack(layers=layers, region_positions=4, **sizes))
    code = f"import sys, coattn; coattn.load({str(folder)!r}); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_a_generator_comes_back_the_same(decoder: str, tmp_path: Path) -> None:
    model = writer(decoder=decoder, num_beams=3, max_length=4).eval()
    save_writer(tmp_path / "model", model)
    directory = load_directory(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, VQAGenerator)
    assert (again.num_beams, again.max_length) == (3, 4)
    assert isinstance(directory.answer_vocabulary, AnswerWords)
    assert directory.answer_vocabulary.words == ANSWER_WORDS.words
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_generator_and_a_classifier_need_their_own_vocabularies(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 answers to choose from, which a VQAGenerator cannot use"):
        save_writer(tmp_path / "model", writer(), ANSWERS)
    with pytest.raises(ValueError, match="6 answer word ids, but the model scores 7"):
        save_writer(tmp_path / "model", writer(), AnswerWords(["red", "blue"]))
    with pytest.raises(ValueError, match="7 words to write answers with, which a VQAModel cannot use"):
        save_writer(tmp_path / "model", make(), ANSWER_WORDS)  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()
