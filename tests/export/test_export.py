from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from coattn import models
from coattn.apps.schema import AskedQuestion
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.store.writer import StoreWriter
from coattn.nn import VQAModel
from coattn.serialization.directory import load_directory, save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

pytest.importorskip("onnxscript", reason="the extra export is not installed")
runtime = pytest.importorskip("coattn.runtime")

from coattn.export.changed_answers import (  # noqa: E402
    ChangedAnswers,
    count_changed_answers,
    questions_to_compare,
    write_changed_answers,
)
from coattn.export.folder import Parity, check_parity, export_folder  # noqa: E402
from coattn.export.generator import write_generator  # noqa: E402
from coattn.export.image_side import split_image_side  # noqa: E402
from coattn.export.onnx import (  # noqa: E402
    ClassifierGraph,
    classifier_axes,
    example_inputs,
    write_graph,
)
from coattn.runtime.__main__ import main as ask_export  # noqa: E402

WORDS = Vocabulary(["what", "color", "is", "the", "circle"])
ANSWERS = AnswerVocabulary(["yes", "no", "red", "blue"])
QUESTIONS = ("what color is the circle?", "is the circle what", "is it?")
SMALL: dict[str, dict[str, Any]] = {
    "stack": {"layers": ["parallel", "alternating"], "dim": 16},
    "parallel": {"dim": 16},
    "alternating": {"dim": 16, "question_encoder": "gru"},
    "dense": {"dim": 16},
    "modular": {"dim": 16, "question_encoder": "none", "boxes": True},
    "question_only": {"dim": 16},
}
ALL = sorted({**models.PRESETS, **models.GENERATORS})


def make(preset: str, **sizes: Any) -> Any:
    torch.manual_seed(5)
    common = {"num_words": len(WORDS), "region_dim": 56}
    if preset in models.GENERATORS:
        return models.GENERATORS[preset](**common, num_answer_words=9, dim=16).eval()
    return models.PRESETS[preset](**common, num_answers=len(ANSWERS), **SMALL.get(preset, {}), **sizes).eval()


def save(folder: Path, model: VQAModel, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "answer_vocabulary": ANSWERS,
        "question_vocabulary": WORDS,
        "metric": "exact_match",
        "activation": "softmax",
        "temperature": 1.5,
        "max_tokens": 8,
        "extractor": Descriptor().record,
        "card": "# A model\n",
    }
    save_model(folder, model, **(settings | changes))
    return folder


def photo(seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (6, 8, 3), np.uint8)).resize((80, 60))
    ImageDraw.Draw(image).ellipse((10, 10, 40, 40), "red")
    return image


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run") / "model", make("alternating"))


@pytest.fixture(scope="module")
def exported(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    assert export_folder(model_folder, out, maps=True).difference < 1e-4
    return out


@pytest.mark.slow
@pytest.mark.parametrize("preset", ALL)
def test_every_preset_has_the_same_logits(preset: str, tmp_path: Path) -> None:
    model = make(preset)
    if preset in models.GENERATORS:
        write_generator(model, tmp_path)
    else:
        inputs = example_inputs(model, batch=3, tokens=5, regions=7)
        write_graph(
            ClassifierGraph(model, (), packed=True), inputs, classifier_axes(), ["logits"], tmp_path / "model.onnx"
        )
    split_image_side(tmp_path / "model.onnx", tmp_path / "image.onnx")
    assert (tmp_path / "image.onnx").exists() == (preset != "question_only")
    assert check_parity(model, tmp_path).difference < 1e-4


def test_answers_are_those_of_the_model(model_folder: Path, exported: Path) -> None:
    from coattn.predictor import Predictor

    ours, theirs = Predictor.load(model_folder), runtime.Predictor.load(exported)
    pairs = [(photo(seed), question) for seed in range(2) for question in QUESTIONS]
    for expected, found in zip(ours.ask_many(pairs), theirs.ask_many(pairs), strict=True):
        assert [answer.text for answer in found] == [answer.text for answer in expected]
        assert [answer.confidence for answer in found] == pytest.approx([a.confidence for a in expected], abs=1e-5)
        assert found.unknown_words == expected.unknown_words
        assert found.reasons == expected.reasons


def test_the_image_side_is_computed_once_for_images_of_any_number_of_regions(
    model_folder: Path, exported: Path
) -> None:
    from coattn.features.encoded import EncodedImage
    from coattn.predictor import Predictor

    random = np.random.default_rng(3)
    arrays = [(random.random((n, 56), np.float32), random.random((n, 4), np.float32), (80, 60)) for n in (3, 0, 9)]
    ours, theirs = Predictor.load(model_folder), runtime.Predictor.load(exported)
    expected = [EncodedImage(*map(torch.from_numpy, each[:2]), each[2], None) for each in arrays]
    images = [runtime.EncodedImage(*each, None) for each in arrays]
    alone = [theirs.ask(image, question) for image, question in zip(images, QUESTIONS, strict=True)]
    theirs._image_side = None  # no longer needed
    found = theirs.ask_many(list(zip(images, QUESTIONS, strict=True)))
    for answers in (alone, found):
        for one, other in zip(answers, ours.ask_many(list(zip(expected, QUESTIONS, strict=True))), strict=True):
            assert dict(one) == pytest.approx(dict(other), abs=1e-5)


def test_maps_are_outputs_of_the_second_graph(model_folder: Path, exported: Path) -> None:
    import onnxruntime

    model = load_directory(model_folder).model
    session = onnxruntime.InferenceSession((exported / "maps.onnx").read_bytes())
    inputs = example_inputs(model, batch=2, tokens=4, regions=6, seed=9)
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    found = session.run(names, {name: value.numpy() for name, value in inputs.items() if name in wanted})
    question, regions = inputs.pop("question"), inputs.pop("regions")
    with torch.no_grad():
        expected = model(question, regions, **inputs, need_weights=True)
    assert names == ["logits", *expected.maps]
    for name, value in zip(names[1:], found[1:], strict=True):
        assert np.allclose(value, expected.maps[name].numpy(), atol=1e-5), name
    # The last image has no region: nothing is attended to.
    assert not found[names.index("pooling.regions")][-1].any()


def test_it_answers_where_torch_cannot_be_imported(exported: Path, tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    blocked = "('torch', 'h5py', 'transformers', 'lightning', 'matplotlib')"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));"
        "import runpy; sys.argv[1:] = sys.argv[2:]; runpy.run_module('coattn.runtime', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "-", "ask", str(exported), str(tmp_path / "photo.png"), *QUESTIONS, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["question"] for line in lines] == list(QUESTIONS)
    assert all(len(line["answers"]) == len(ANSWERS) for line in lines)
    assert all(line.keys() == {"image", *AskedQuestion.__struct_fields__} - {"map"} for line in lines)
    assert lines[2]["unknown_words"] == []  # "it" is a function word
    assert "certificate.json and index.safetensors" in done.stderr
    assert "certify` on its model directory and export it again" in done.stderr


def test_card_hashes_and_files(exported: Path) -> None:
    assert "## Export" in (exported / "README.md").read_text()
    config = json.loads((exported / "runtime.json").read_text())
    assert set(config["sha256"]) == {path.name for path in exported.iterdir()} - {"runtime.json"}


@pytest.mark.slow
def test_int8_is_smaller_and_still_answers(
    model_folder: Path, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export_folder(model_folder, tmp_path / "int8", int8=True)
    assert "pre-processing" not in caplog.text  # advice of onnxruntime that is not for users
    sizes = [(folder / "model.onnx").stat().st_size for folder in (tmp_path / "int8", exported)]
    assert sizes[0] < sizes[1]
    small, full = (runtime.Predictor.load(folder) for folder in (tmp_path / "int8", exported))
    alone = [small.ask(photo(), question)[0] for question in QUESTIONS]
    assert [answer.confidence for answer in alone] == pytest.approx(
        [full.ask(photo(), question)[0].confidence for question in QUESTIONS], abs=0.05
    )
    # The scale of 8-bit activations is that of a batch, but no question changes the answer to another.
    assert [answers[0] for answers in small.ask_many([(photo(), question) for question in QUESTIONS])] == alone


def test_changed_answers_are_counted_and_written_into_the_card(
    model_folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coattn.predictor import Predictor

    data, random = tmp_path / "data", np.random.default_rng(1)
    data.mkdir()
    with StoreWriter(data / "features", dim=56, dtype="float32", record=Descriptor().record) as writer:
        for number in range(2):
            boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (16, 1))
            writer.add(f"{number}", random.normal(size=(16, 56)).astype(np.float32), boxes, (80, 60))
    asked = [
        {"question_id": place, "image_id": f"{place % 2}", "question": f"{text} hexagon"}
        for place, text in enumerate(QUESTIONS)
    ]
    (data / "val_questions.json").write_text(json.dumps({"questions": asked}))
    model, folder = Predictor.load(model_folder, features=data / "features"), tmp_path / "copy"
    records = questions_to_compare(model, data)
    shutil.copytree(exported, folder)
    predictor = runtime.Predictor.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the doubts of single answers, here of an unknown word
        assert count_changed_answers(model, predictor, records) == ChangedAnswers(0, 3)
    ranked = predictor._ranked
    monkeypatch.setattr(predictor, "_ranked", lambda logits, answers, top_k: ranked(-logits, answers, top_k))
    assert count_changed_answers(model, predictor, records) == ChangedAnswers(3, 3)
    write_changed_answers(folder, ChangedAnswers(1, 3))
    assert (folder / "README.md").read_text().endswith("33.3 % of the answers differ from the model's (1 of 3).\n")
    digest = hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
    assert json.loads((folder / "runtime.json").read_text())["sha256"]["README.md"] == digest


def test_questions_to_compare_are_read_before_the_export(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("coattn.export.folder._write")
    with pytest.raises(FileNotFoundError, match="features"):
        export_folder(model_folder, tmp_path / "out", check=tmp_path / "data")
    with StoreWriter(tmp_path / "data" / "features", dim=56, dtype="float32", record=Descriptor().record) as writer:
        writer.add("1", np.zeros((1, 56), np.float32), np.zeros((1, 4), np.float32), (80, 60))
    with pytest.raises(FileNotFoundError, match=r"has neither test_questions\.json nor val_questions\.json"):
        export_folder(model_folder, tmp_path / "out", check=tmp_path / "data")
    asked = [{"question_id": 1, "image_id": "2", "question": "what"}]
    (tmp_path / "data" / "test_questions.json").write_text(json.dumps({"questions": asked}))
    with pytest.raises(ValueError, match="no features of image '2'"):
        export_folder(model_folder, tmp_path / "out", check=tmp_path / "data")
    assert not (tmp_path / "out").exists()


def test_an_extractor_that_is_not_exported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coattn.cli import main

    monkeypatch.setattr("coattn.export.folder.write_graph", lambda *_: None)
    monkeypatch.setattr("coattn.export.folder.split_image_side", lambda *_: None)
    monkeypatch.setattr("coattn.export.folder.check_parity", lambda *_: Parity(0.0, ()))
    monkeypatch.setattr("coattn.export.folder._quantize", lambda *_: None)
    detector = {"name": "torchvision", "settings": {}, "weights": None, "versions": {}}
    save(tmp_path / "model", make("alternating"), extractor=detector)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--int8"]) == 0
    reason = (
        "of the image extractors only those without a network, or on a grid, are exported, and 'torchvision' is neither"
    )
    assert reason in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert reason in card
    assert "How many answers it changes was not measured" in card


def damage(folder: Path, name: str, change: Any) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.onnx", lambda data: data[: len(data) // 2], r"model\.onnx: damaged or replaced"),
        (
            "runtime.json",
            lambda data: data.replace(b'"version": 1', b'"version": 2'),
            "version 2, but this coattn reads",
        ),
        ("runtime.json", lambda data: data[:40], r"runtime\.json: not valid JSON"),
        ("runtime.json", lambda data: data.replace(b'"temperature": 1.5', b'"temperature": 0.0'), "temperature is 0.0"),
        ("runtime.json", lambda data: b'{"format": "other"}', "not an exported model of coattn"),
        ("answers.json", lambda data: b"7", r"answers\.json"),
    ],
)
def test_damaged_folders_are_refused(exported: Path, tmp_path: Path, name: str, change: Any, message: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    damage(folder, name, change)
    with pytest.raises(ValueError, match=message):
        runtime.Predictor.load(folder)


def test_a_missing_file_is_named(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "image.onnx").unlink()
    assert ask_export(["ask", str(folder), "photo.png", QUESTIONS[0]]) == 2
    assert capsys.readouterr().err == f"coattn: error: {folder / 'image.onnx'}: No such file or directory\n"


def test_an_export_cannot_control_the_terminal(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, photo_path = tmp_path / "copy", tmp_path / "photo.png"
    shutil.copytree(exported, folder)
    photo().save(photo_path)
    path, config = folder / "answers.json", json.loads((folder / "runtime.json").read_text())
    path.write_text(path.read_text().replace("red", r"\u001b[2J"))
    config["sha256"]["answers.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "runtime.json").write_text(json.dumps(config))
    assert ask_export(["ask", str(folder), str(photo_path), QUESTIONS[0]]) == 0
    assert r"%  \u001b[2J" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 40])
def test_a_graph_that_onnxruntime_cannot_read_is_named(exported: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "runtime.json").read_text())
    config["sha256"]["model.onnx"] = hashlib.sha256(content).hexdigest()  # so that the hash does not reveal it
    (folder / "runtime.json").write_text(json.dumps(config))
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx: onnxruntime cannot read it \([A-Z][\w ]+\.\)$"):
        runtime.Predictor.load(folder)


def test_an_export_that_fails_leaves_nothing(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coattn.export.folder.write_graph", lambda *_: None)
    monkeypatch.setattr("coattn.export.folder.split_image_side", lambda *_: None)
    monkeypatch.setattr("coattn.export.folder.check_parity", lambda *_: Parity(0.5, ()))
    with pytest.raises(ValueError, match=r"a logit of the export differs by 0\.5, more than 0\.0001"):
        export_folder(model_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bad_questions_and_images(exported: Path, model_folder: Path) -> None:
    predictor = runtime.Predictor.load(exported)
    with pytest.raises(ValueError, match="has no word in it"):
        predictor.ask(photo(), "??")
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        predictor.ask(photo(), "what", top_k=0)
    with pytest.raises(ValueError, match="not an image"):
        predictor.ask(b"text", "what")
    with pytest.raises(FileNotFoundError, match="not an exported model"):
        runtime.Predictor.load(model_folder)


def test_what_cannot_be_exported_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        export_folder(model_folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such model directory"):
        export_folder(tmp_path / "none", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    faithful = save(tmp_path / "model", make("mcan_small", faithful=True))
    with pytest.raises(
        ValueError, match=r"its authors' padding .* is not exported; convert its weights with --repaired"
    ):
        export_folder(faithful, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [faithful]


@pytest.mark.slow
def test_a_network_extractor_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from safetensors.torch import save_file

    from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid
    from coattn.predictor import Predictor

    network = TorchvisionGrid("squeezenet1_1", weights="none", size=(64, 96), grid=(2, 3), global_region=True)
    save_file(dict(network.weights), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    model = models.modular(num_words=len(WORDS), region_dim=network.dim, num_answers=4, dim=16, question_encoder="none")
    files = {"extractor": network.record, "extractor_weights": tmp_path / "weights.safetensors"}
    folder = save(tmp_path / "model", model.eval(), **files)
    export_folder(folder, tmp_path / "out")
    ours, theirs = Predictor.load(folder), runtime.Predictor.load(tmp_path / "out")
    file = io.BytesIO()
    photo().save(file, format="PNG")
    mine, found = ours.encode(file.getvalue()), theirs.encode(file.getvalue())
    assert np.allclose(found.features, mine.features.numpy(), atol=1e-4)
    assert np.allclose(found.boxes, mine.boxes.numpy())
    assert theirs.ask(found, QUESTIONS[0])[0].text == ours.ask(mine, QUESTIONS[0])[0].text
