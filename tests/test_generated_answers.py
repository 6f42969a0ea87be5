"""Asking a model that writes its answers: Predictor, pictures, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.cli import main
from coattn.explain.maps import Explanation, default_map, region_weights
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.metrics.calibration import confidences, log_odds
from coattn.nn.maps import parse
from coattn.predictor import Predictor
from coattn.serialization.directory import load_directory, save_model
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import Vocabulary

WORDS = Vocabulary(["what", "is", "on", "the", "table"])
ANSWER_WORDS = AnswerWords(["chair", "lamp", "garbage", "bin"])
QUESTION = "what is on the table?"


def save(folder: Path, decoder: str = "lstm", attention: str = "additive", **sizes: object) -> Path:
    torch.manual_seed(5)
    model = models.generator(
        num_words=len(WORDS),
        region_dim=56,
        num_answer_words=len(ANSWER_WORDS),
        dim=16,
        embedding_dim=8,
        decoder=decoder,
        attention=attention,
        **{"standardized": False, "max_length": 6, "num_beams": 3} | sizes,
    )
    model.decoder.classify.weight.data *= 6
    save_model(
        folder,
        model,
        answer_vocabulary=ANSWER_WORDS,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="sigmoid",
        temperature=1.5,
        extractor=Descriptor().record,
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "room.png"
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path)
    return path


@pytest.fixture(scope="module")
def explanation(folder: Path, photo: Path) -> Explanation:
    return Predictor.load(folder).maps(photo, QUESTION)


def test_answers_are_those_of_the_search_best_first(folder: Path, photo: Path) -> None:
    predictor, model = Predictor.load(folder), load_directory(folder).model
    image = predictor.encode(photo)
    answers = predictor.ask(image, QUESTION, top_k=5)
    found = model.generate(
        torch.tensor([WORDS.encode(QUESTION)]),
        image.features[None],
        question_mask=torch.ones(1, 5, dtype=torch.bool),
        region_mask=torch.ones(1, len(image.features), dtype=torch.bool),
        num_beams=5,
    )
    assert [answer.text for answer in answers] == ANSWER_WORDS.texts(found.tokens[0].tolist())
    confidence = confidences(log_odds(found.scores[0]), 1.5, "sigmoid")
    torch.testing.assert_close(torch.tensor([answer.confidence for answer in answers]), confidence)
    assert [answer.confidence for answer in answers] == sorted((c for _, c in answers), reverse=True)
    # Fewer answers are searched for with the beams that the model was judged with.
    assert predictor.ask(image, QUESTION, top_k=1) == predictor.ask(image, QUESTION, top_k=3)[:1]
    many = predictor.ask_many([(image, QUESTION), (image, "table?")], top_k=5)
    assert [text for text, _ in many[0]] == [text for text, _ in answers]


def test_the_log_odds_of_a_probability_give_it_back() -> None:
    probabilities = torch.tensor([1e-6, 0.2, 0.5, 0.999, 1.0])
    odds = log_odds(probabilities.log())
    assert odds.isfinite().all()
    torch.testing.assert_close(odds.sigmoid(), probabilities)
    assert log_odds(torch.tensor(-math.inf)) == -math.inf


def test_each_written_word_is_explained(explanation: Explanation) -> None:
    words = explanation.written
    assert " ".join(words).replace(" ,", ",") == explanation.answers[0].text
    assert explanation.maps["decoder.regions"].shape == (1, len(words), 16)
    assert explanation.maps["decoder.question"].shape == (1, len(words), 5)
    assert default_map(explanation.maps, "regions") == "decoder.regions"
    for place in range(len(words)):
        weights = region_weights(explanation, "decoder.regions", word=place)
        assert sum(weight for _, weight in weights) == pytest.approx(1, abs=1e-5)
    assert parse("decoder.layers.0.question")[1:] == ("answer", "question")


def test_a_word_of_the_answer_must_be_named(explanation: Explanation) -> None:
    with pytest.raises(ValueError, match=r"decoder\.regions has a row for each word of the answer: name one"):
        explanation.line("decoder.regions")
    with pytest.raises(ValueError, match="the answer has no word 'table', only 0 "):
        explanation.line("decoder.regions", word="table")
    with pytest.raises(ValueError, match="name one"):
        explanation.line("decoder.regions", word=0, region=1)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_pictures_show_every_written_word(
    decoder: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coattn.visualization import canvas
    from coattn.visualization.attention import compare, draw

    written: list[str] = []
    write = canvas.Canvas.text

    def record(self: canvas.Canvas, x: float, y: float, text: str, size: float, **style: object) -> None:
        written.append(text)
        write(self, x, y, text, size, **style)

    monkeypatch.setattr(canvas.Canvas, "text", record)
    explanation = Predictor.load(save(tmp_path / "model", decoder, decoder_layers=2)).maps(photo, QUESTION)
    for name in ("decoder.regions", "decoder.question", "layers.0.question_to_question"):
        written.clear()
        heads = None if len(explanation.maps[name]) == 1 else 0
        assert draw(explanation, map=name, head=heads).size[0] > 500
        if name.startswith("decoder."):
            assert set(explanation.written) <= set(written)
            assert any("word of the answer" in text for text in written)
    assert draw(explanation, word=0).tobytes() != draw(explanation, word=1).tobytes()
    assert compare([explanation] * 2).size[0] > 500


def test_a_fixed_context_has_no_map_of_its_own(photo: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "model", attention="none"))
    explanation = predictor.maps(photo, QUESTION)
    assert explanation.written
    assert not any(name.startswith("decoder.") for name in explanation.maps)
    with pytest.raises(ValueError, match=r"no map is called 'pooling\.regions'; this model has layers"):
        predictor.explain(photo, QUESTION, map="pooling.regions")
    assert predictor.attribute(photo, QUESTION).attribution is not None  # by leaving parts out, without any map


def test_ask_shows_what_was_written(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "map.png"
    assert main(["ask", str(folder), str(photo), QUESTION, "--json", "--top-k", "2", "--map", str(picture)]) == 0
    shown = json.loads(capsys.readouterr().out)
    answers = Predictor.load(folder).ask(photo, QUESTION, top_k=2)
    assert [(entry["answer"], entry["confidence"]) for entry in shown["answers"]] == [
        (text, pytest.approx(confidence, abs=1e-6)) for text, confidence in answers
    ]
    assert picture.stat().st_size > 10_000
    both = ["ask", str(folder), str(photo), QUESTION, "what is the table?", "--map", str(picture)]
    assert main([*both, "--map-name", "decoder.regions", "--word", "0"]) == 0
    assert main(["ask", str(folder), str(photo), QUESTION, "--map", str(picture), "--word", "sofa"]) == 2
    assert "the answer has no word 'sofa'" in capsys.readouterr().err


def test_damaged_weights_are_named(photo: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "model"))
    predictor.model.decoder.classify.bias.data[:] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        predictor.ask(photo, QUESTION)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        predictor.ask(photo, QUESTION, top_k=0)
