from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from coattn import models
from coattn._internal import files
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.layers import lengths_to_mask
from coattn.serialization.directory import load, load_directory, save_model
from coattn.serialization.files import CONFIG, WEIGHTS
from coattn.serialization.registry import BRICKS, build, describe
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

WORDS = Vocabulary(["what", "is", "it", "red"])
ANSWERS = AnswerVocabulary(["yes", "no", "2"])
RECORD = {"name": "descriptor", "settings": {"grid": [4, 4]}, "weights": None, "versions": {}}
SMALL: dict[str, dict[str, Any]] = {
    "dcn": {"dim": 16, "num_layers": 2, "recurrent_dim": 8},
    "hiecoatt_parallel": {"dim": 16, "joint_dim": 16},
    "hiecoatt_alternating": {"dim": 16, "joint_dim": 16},
    "mcan_small": {"dim": 16, "ffn_dim": 32, "joint_dim": 16, "num_heads": 2},
    "mcan_large": {"dim": 16, "ffn_dim": 32, "joint_dim": 16, "num_heads": 2},
    "stack": {"dim": 16, "layers": list(models.LAYERS)},
}


def make(preset: str = "modular", **inputs: int) -> VQAModel:
    inputs = inputs or {"num_words": len(WORDS)}
    return models.PRESETS[preset](
        region_dim=6, num_answers=len(ANSWERS), **inputs, **SMALL.get(preset, {"dim": 16, "embedding_dim": 8})
    )


def save(folder: Path, model: VQAModel | None = None, **changes: Any) -> Path:
    settings: dict[str, Any] = {"question_vocabulary": WORDS, "temperature": 1.5, "card": "# A model"} | changes
    model = model or make()
    save_model(
        folder,
        model,
        answer_vocabulary=ANSWERS,
        metric="exact_match",
        activation="softmax",
        extractor=RECORD,
        **settings,
    )
    return folder


def logits(model: VQAModel) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    words = model.question_encoder.num_words
    question = (
        torch.randint(words, (2, 5), generator=random) if words else torch.rand(2, 5, 8, generator=random)  # type: ignore[call-overload]
    )
    with torch.inference_mode():
        return model(
            question,
            torch.rand(2, 7, 6, generator=random),
            question_mask=lengths_to_mask(torch.tensor([5, 3]), 5),
            region_mask=lengths_to_mask(torch.tensor([4, 7]), 7),
            boxes=torch.rand(2, 7, 4, generator=random),
            image_sizes=torch.ones(2, 2),
        ).logits


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / CONFIG
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


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


def test_standardisation_and_training_survive(tmp_path: Path) -> None:
    model = make()
    model.region_encoder = BRICKS["RegionEncoder"](6, dim=model.region_encoder.dim, standardised=True)
    model.region_encoder.standardise(torch.full((6,), 3.0), torch.full((6,), 2.0))
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


# Saving


def test_replaces_a_model_and_leaves_no_trace(tmp_path: Path) -> None:
    save(tmp_path / "model", extra={"number": 1})
    save(tmp_path / "model", extra={"number": 2})
    assert load_directory(tmp_path / "model").extra == {"number": 2}
    assert os.listdir(tmp_path) == ["model"]


def test_others_may_read_it_as_they_may_read_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    folder = save(tmp_path / "model")
    assert folder.stat().st_mode == (tmp_path / "folder").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "file").stat().st_mode}


def test_can_take_its_files_from_the_model_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    folder = save(tmp_path / "model", extractor_weights=tmp_path / "weights")
    save(folder, extractor_weights=folder / "extractor.safetensors")
    assert (folder / "extractor.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("precious", ["thesis.tex", "model/../thesis.tex"])
def test_a_folder_that_is_no_model_is_left_alone(precious: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / precious).write_text("years")
    with pytest.raises(ValueError, match="not a model directory"):
        save(tmp_path)
    assert (tmp_path / precious).read_text() == "years"


def test_foreign_files_in_a_model_directory_are_not_deleted(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"would delete notes\.txt"):
        save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_leftovers_of_a_killed_command_do_not_keep_a_model_from_being_replaced(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / ".certificate.json.a1b2c3.partial").write_text("{")
    save(folder, finish=lambda new: (new / "certificate.json").write_text("[]"))
    assert (folder / "certificate.json").read_text() == "[]"
    assert not list(folder.glob(".*"))


def test_leftovers_in_a_foreign_folder_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / ".film.mp4.partial").write_text("mine")
    (tmp_path / "film.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a model directory"):
        save(tmp_path)
    assert (tmp_path / ".film.mp4.partial").read_text() == "mine"


def test_an_unfinished_save_leaves_the_old_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", extra={"number": 1})
    with pytest.raises(FileNotFoundError):
        save(folder, extractor_weights=tmp_path / "missing.safetensors")
    assert load_directory(folder).extra == {"number": 1}
    assert os.listdir(tmp_path) == ["model"]


def test_vocabularies_must_be_those_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary of 3 ids, but the model reads 6"):
        save(tmp_path / "model", question_vocabulary=Vocabulary(["what"]))
    with pytest.raises(ValueError, match="None ids, but the model reads 6"):
        save(tmp_path / "model", question_vocabulary=None)
    assert os.listdir(tmp_path) == []


def test_a_foreign_module_cannot_be_saved(tmp_path: Path) -> None:
    model = make()
    model.head = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear is not a brick"):
        save(tmp_path / "model", model)


# Loading what is damaged or hostile


def test_every_wrong_tensor_is_listed(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    del tensors["head.classify.bias"]
    tensors["evil"] = torch.zeros(2)
    tensors["head.classify.weight"] = tensors["head.classify.weight"][:2]
    tensors["region_encoder.features.bias"] = tensors["region_encoder.features.bias"].double()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="does not fit") as error:
        load(folder)
    for problem in (
        str(folder / WEIGHTS),
        "missing head.classify.bias float32 (3,)",
        "unexpected evil float32 (2,)",
        "head.classify.weight is float32 (2,",
        "region_encoder.features.bias is float64 (",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["model"]["head"].update({"class": "os.system"}),
            r"model\.head: the class 'os\.system' is not one",
        ),
        (lambda c: c["model"]["head"].pop("class"), r"model\.head: the class None"),
        (lambda c: c.update(model={"class": "RegionEncoder", "region_dim": 6}), r"RegionEncoder\): lacks dim"),
        (lambda c: c.update(model=c["model"]["region_encoder"]), "not a VQAModel"),
        (lambda c: c["model"]["head"].pop("num_answers"), r"model\.head \(ClassifierHead\): lacks num_answers"),
        (lambda c: c["model"]["head"].update(colour="red"), "has the unknown colour"),
        (lambda c: c["model"]["head"].update(num_answers="3"), r"model\.head\.num_answers: '3' is not of the type"),
        (lambda c: c["model"]["head"].update(num_answers=True), r"model\.head\.num_answers: True is not of the type"),
        (lambda c: c["model"].update(head=None), r"model\.head: None is not of the type"),
        (lambda c: c["model"]["head"].update(fusion="magic"), r"ClassifierHead\): fusion must be one of"),
        (
            lambda c: c["model"]["coattention"]["layers"][0].update(num_heads=0),
            r"layers\[0\] \(QuestionSelfAttention\)",
        ),
        (lambda c: c["model"]["coattention"].update(layers=[]), "at least one layer"),
        (lambda c: c["model"]["coattention"].update(layers=[c["model"]["head"]]), r"coattention\.layers: "),
        (lambda c: c["model"]["head"].update(num_answers=-1), "ClassifierHead"),
        (
            lambda c: c["model"]["head"].update(num_answers=10**13),
            r"num_answers: 10000000000000 exceeds the count of all numbers",
        ),
        (lambda c: c["model"]["head"].update(num_answers=1000), r"head\.classify\.weight is .* the config needs"),
        (lambda c: c.pop("metric"), "lacks metric"),
        (lambda c: c.update(hook="x"), "unknown hook"),
        (lambda c: c.update(temperature="hot"), "temperature: 'hot' is not of type float"),
        (lambda c: c.update(max_tokens=-1), "max_tokens: -1 is not a positive number"),
        (lambda c: c.update(temperature=float("nan")), "temperature: nan is not a positive number"),
        (lambda c: c.update(activation="relu"), "activation: 'relu' is not of type"),
        (lambda c: c["extractor"].pop("weights"), "extractor: lacks weights"),
        (lambda c: c["extractor"].update(name=[None]), r"extractor\.name: \[None\] is not of type"),
        (lambda c: c["extractor"].update(weights={"id": "x"}), r'extractor\.weights: has no text under "sha256"'),
        (lambda c: c["extractor"]["settings"].update(size=[64]), r"size: \[64\] is not a width and a height"),
        (lambda c: c["extractor"]["settings"].update(size=[60000, 64]), "of 1 to 8192 pixels"),
        (lambda c: c["extractor"]["settings"].update(size=[10**30, 64]), "of 1 to 8192 pixels"),
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(format="zip"), "not a model of coattn"),
    ],
)
def test_a_wrong_config_is_refused_by_file_and_key(edit: Callable[[dict], Any], message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    edit_config(folder, edit)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value)


def test_a_giant_of_a_config_costs_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    num_values = sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    layer = json.loads((folder / CONFIG).read_text())["model"]["coattention"]["layers"][0]
    giant = layer | {"ffn_dim": num_values}  # gigabytes, were they allocated
    edit_config(folder, lambda config: config["model"]["coattention"].update(layers=[giant] * 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="does not fit"):
        load(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB, on macOS bytes
    assert grown < 2**30 // (1 if sys.platform == "darwin" else 1024)


def test_a_flipped_bit_in_the_weights_is_noticed_and_a_directory_without_a_hash_loads(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged: its SHA-256"):
        load(folder)
    edit_config(folder, lambda config: config.pop("sha256"))
    load(folder)


def test_replacing_a_model_has_no_moment_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "model")
    exchange = files.exchange

    def observed(first: Path, second: Path) -> None:
        load(second)
        exchange(first, second)
        load(second)

    monkeypatch.setattr(files, "exchange", observed)
    save(tmp_path / "model", temperature=3.0)
    assert load_directory(folder).temperature == 3.0
    assert list(tmp_path.iterdir()) == [folder]


def test_a_model_is_recovered_after_an_interrupted_replacement(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    folder.rename(tmp_path / ".model.old")  # killed here, on a system that cannot exchange two names
    with pytest.raises(FileNotFoundError, match=r"rename .*\.model\.old to it"):
        load(folder)
    save(tmp_path / "model", temperature=3.0)
    assert load_directory(folder).temperature == 3.0
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["answers.json", "question_vocabulary.json"])
def test_half_a_surrogate_pair_is_refused(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("yes", r"\ud800").replace("what", r"\ud800"))
    with pytest.raises(ValueError, match=f"{name}: holds half of a surrogate pair"):
        load(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "answers.json", "question_vocabulary.json"])
def test_damaged_and_missing_files_are_named(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load(folder)
    os.mkfifo(folder / name)  # waits for ever if it is read
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("answers.json", ["yes"], "1 answers, but the model scores 3"),
        ("answers.json", ["yes", "yes", "no"], "'yes' twice"),
        ("answers.json", {"yes": 0}, "list of texts"),
        ("question_vocabulary.json", ["what"], "3 ids, but the model reads 6"),
    ],
)
def test_foreign_vocabularies_are_refused(name: str, content: Any, message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_bottomless_config_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / CONFIG).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=CONFIG):
        load(folder)


def test_not_a_model_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a model directory"):
        load(tmp_path)


# Bricks


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


# Models that write their answers

ANSWER_WORDS = AnswerWords(["red", "blue", "chair"])


def writer(**sizes: Any) -> VQAGenerator:
    return models.generator(region_dim=6, num_answer_words=len(ANSWER_WORDS), num_words=len(WORDS), dim=16, **sizes)


def save_writer(folder: Path, model: VQAGenerator, answers: Any = ANSWER_WORDS) -> None:
    save_model(
        folder,
        model,
        answer_vocabulary=answers,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="sigmoid",
        extractor=RECORD,
    )


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
