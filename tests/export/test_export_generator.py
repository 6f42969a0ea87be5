from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.nn import VQAGenerator
from coattn.nn.decoder import beam_search
from coattn.nn.decoder.base import Context, map_tensors
from coattn.serialization.directory import save_model
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import Vocabulary

pytest.importorskip("onnxscript", reason="the extra export is not installed")
runtime = pytest.importorskip("coattn.runtime")

from coattn.export.folder import export_folder  # noqa: E402
from coattn.export.onnx import example_inputs  # noqa: E402
from coattn.runtime import beam  # noqa: E402

WORDS = Vocabulary(["what", "color", "is", "the", "circle"])
ANSWER_WORDS = AnswerWords(["yes", "no", "red", "blue", "left", "of", "it"])
QUESTIONS = ("what color is the circle?", "is the circle what", "is it?")
KINDS = [(decoder, attention) for decoder in ("lstm", "transformer") for attention in ("additive", "dot", "none")]


def make(decoder: str, attention: str, **sizes: Any) -> VQAGenerator:
    torch.manual_seed(7)
    model = models.generator(
        num_words=len(WORDS),
        region_dim=56,
        num_answer_words=len(ANSWER_WORDS),
        dim=16,
        embedding_dim=8,
        decoder=decoder,
        attention=attention,
        decoder_heads=2,
        **({"decoder_layers": 2, "max_length": 6} | sizes),
    ).eval()
    with torch.no_grad():  # of a random model all answers would have nearly the same score
        model.decoder.classify.weight *= 6
    return model


def save(folder: Path, model: VQAGenerator) -> Path:
    save_model(
        folder,
        model,
        answer_vocabulary=ANSWER_WORDS,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="sigmoid",
        temperature=1.5,
        max_tokens=8,
        extractor=Descriptor().record,
    )
    return folder


def photo(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 255, (6, 8, 3), np.uint8)).resize((80, 60))


def numpy_step(model: VQAGenerator, context: Context) -> beam.Step:
    """One step of a decoder of torch, on numpy arrays; the state is (N, layers, 2, ...)."""

    def step(words: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        past = tuple(layer.unbind(1) for layer in torch.from_numpy(state).unbind(1))
        with torch.no_grad():
            output = model.decoder(torch.from_numpy(words)[:, None], context, past)
        log_probs = torch.nn.functional.pad(output.logits[:, 0, 2:].log_softmax(-1), (2, 0), value=beam.NEVER)
        return log_probs.numpy(), torch.stack([torch.stack(pair, 1) for pair in output.state], 1).numpy()

    return step


@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_the_search_is_that_of_the_model(decoder: str, attention: str) -> None:
    model = make(decoder, attention)
    inputs = example_inputs(model, batch=5, tokens=4, regions=6, seed=1)
    question, regions = inputs.pop("question"), inputs.pop("regions")
    with torch.no_grad():
        context = model.encode(question, regions, **inputs).context
    for num_beams in (1, 3, 5, 30):  # with 30 beams and a single word some answers are missing
        repeated = map_tensors(lambda x, beams=num_beams: x.repeat_interleave(beams, 0), context)
        state = torch.stack([torch.stack(pair, 1) for pair in model.decoder.start(repeated)], 1).numpy()
        for length_penalty, max_length in ((0.6, 5), (2.0, 5), (0.0, 1)):
            options: dict[str, Any] = {
                "num_beams": num_beams,
                "max_length": max_length,
                "length_penalty": length_penalty,
            }
            expected = beam_search(model.decoder, context, **options)
            found = beam.beam_search(numpy_step(model, repeated), state, **options)
            assert found.tokens.tolist() == expected.tokens.tolist()
            assert found.scores == pytest.approx(expected.scores.numpy(), abs=1e-5)
            assert found.log_probs == pytest.approx(expected.log_probs.numpy(), abs=1e-5)
    assert np.isneginf(found.scores).any()


def check_answers(folder: Path, out: Path) -> None:
    """Compare a model and its export, on photos, an image without regions, and a batch of questions of all lengths."""
    from coattn.predictor import EncodedImage, Predictor

    ours, theirs = Predictor.load(folder), runtime.Predictor.load(out)
    mine = [ours.encode(photo(seed)) for seed in range(2)]
    mine.append(EncodedImage(torch.zeros(0, 56), torch.zeros(0, 4), (80, 60), None))
    found = [theirs.encode(photo(seed)) for seed in range(2)]
    found.append(runtime.EncodedImage(np.zeros((0, 56), np.float32), np.zeros((0, 4), np.float32), (80, 60), None))
    for top_k in (1, 4):
        asked = [[(image, question) for image in images for question in QUESTIONS] for images in (mine, found)]
        pairs = zip(ours.ask_many(asked[0], top_k=top_k), theirs.ask_many(asked[1], top_k=top_k), strict=True)
        for expected, answers in pairs:
            assert [answer.text for answer in answers] == [answer.text for answer in expected]
            assert [answer.confidence for answer in answers] == pytest.approx(
                [a.confidence for a in expected], abs=1e-4
            )
            assert answers.reasons == expected.reasons


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = save(tmp_path_factory.mktemp("run") / "model", make("transformer", "dot", num_beams=3, decoder_layers=1))
    out = folder.parent / "out"
    assert export_folder(folder, out).difference < 1e-4
    return folder, out


def test_an_exported_generator_answers_like_the_model(exported: tuple[Path, Path]) -> None:
    check_answers(*exported)
    config = json.loads((exported[1] / "runtime.json").read_text())
    assert config["search"] == {"num_beams": 3, "max_length": 6, "length_penalty": 0.6}
    assert {"model.onnx", "decoder.onnx"} < config["sha256"].keys()


@pytest.mark.parametrize("change", [{"num_beams": "3"}, {"num_beams": 0}, {"max_length": 2.5}, {"max_length": 10**9}])
def test_damaged_settings_of_the_search_are_refused(
    change: dict[str, Any], exported: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(exported[1], tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "runtime.json").read_text())
    config["search"] |= change
    (tmp_path / "copy" / "runtime.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the settings of the search are damaged"):
        runtime.Predictor.load(tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 5])
@pytest.mark.parametrize(("decoder", "attention"), KINDS)
def test_every_decoder_is_exported(decoder: str, attention: str, num_beams: int, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"boxes": True, "question_encoder": "none"} if num_beams == 1 else {"bidirectional": True}
    model = make(decoder, attention, num_beams=num_beams, length_penalty=1.0, **sizes)
    assert export_folder(save(tmp_path / "model", model), tmp_path / "out").difference < 1e-4
    check_answers(tmp_path / "model", tmp_path / "out")


def test_commands_ask_an_exported_generator(exported: tuple[Path, Path], tmp_path: Path) -> None:
    from coattn.predictor import Predictor

    photo(0).save(tmp_path / "photo.png")
    blocked = "('torch', 'h5py', 'transformers', 'lightning', 'matplotlib')"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));"
        "import runpy; sys.argv[1:] = sys.argv[2:]; runpy.run_module('coattn.runtime', run_name='__main__')"
    )
    arguments = ["ask", str(exported[1]), str(tmp_path / "photo.png"), QUESTIONS[0], "--json"]
    command = [sys.executable, "-c", code, "-", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    expected = Predictor.load(exported[0]).ask(tmp_path / "photo.png", QUESTIONS[0])
    answers = json.loads(done.stdout)["answers"]
    assert [answer["answer"] for answer in answers] == [answer.text for answer in expected]

    pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
    pytest.importorskip("httpx", reason="httpx is not installed")
    from starlette.testclient import TestClient

    from coattn.apps.server import make_app

    with TestClient(make_app({"it": exported[1]}), base_url="http://localhost") as client:
        files = {"image": ("photo.png", (tmp_path / "photo.png").read_bytes(), "image/png")}
        response = client.post("/ask", files=files, data={"question": QUESTIONS[0]})
    assert response.json()["results"][0]["answers"] == answers


def test_maps_of_a_generator_are_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="attention maps of a model that writes its answers are not exported"):
        export_folder(exported[0], tmp_path / "out", maps=True)
    assert list(tmp_path.iterdir()) == []
