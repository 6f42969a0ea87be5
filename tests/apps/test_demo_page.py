"""The demo page, used in Chromium."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import outcome, script

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

WORDS = Vocabulary(["what", "color", "is", "the", "circle"])
STEPS = """
  const ask = (question) => { $("question").value = question; return $("form").onsubmit(new Event("submit")); };
  const fault = () => $("fault").textContent;
  const drop = (file) => { const data = new DataTransfer(); data.items.add(file);
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: data })); };
  const results = () => [...document.querySelectorAll(".result")];
  const shown = () => results().map((box) => ({ heading: box.querySelector("h2").textContent,
    doubt: box.querySelector(".doubt")?.textContent,
    answers: [...box.querySelectorAll(".bar b")].map((answer) => answer.textContent) }));
  const choose = async (id, value) => { const before = state.shown; $(id).value = value; $(id).onchange();
    await until(() => state.shown !== before || fault()); };

  await until(() => $("models").children.length === 3);
  $("question").value = "what is it"; $("form").requestSubmit(); await until(fault); outcome.no_image = fault();

  document.querySelector("#examples button").click(); await state.loading; await until(() => state.image);
  await ask("what color is the hexagon?"); outcome.results = shown();
  outcome.legend = $("legend").textContent; outcome.maps = [...$("map").options].map((option) => option.value);
  await choose("map", "decoder.regions"); outcome.rows = [...$("row").options].map((option) => option.textContent);
  outcome.decoder = $("legend").textContent;

  results()[1].focus(); await until(() => state.model === "chooses");
  const word = results()[1].querySelectorAll(".words button")[1]; word.focus();
  const before = state.shown; word.click(); await until(() => state.shown !== before || fault());
  outcome.word = [$("map").value, $("row").value, document.activeElement.textContent];

  $("question").value = " "; $("form").requestSubmit(); await until(fault); outcome.empty = fault();
  await ask("?!"); outcome.no_word = fault();
  drop(new File(["hello"], "notes.txt", { type: "text/plain" }));
  await until(() => /image/.test(fault())); outcome.wrong_file = fault();
  const canvas = Object.assign(document.createElement("canvas"), { width: 400, height: 300 });
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  drop(new File([blob], "large.png", { type: "image/png" })); await ask("what is it?"); outcome.large = fault();
  outcome.overflow = document.documentElement.scrollWidth - innerWidth;
"""


def save(folder: Path, model: Any, answers: AnswerVocabulary | AnswerWords) -> Path:
    save_model(
        folder,
        model,
        answer_vocabulary=answers,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="sigmoid",
        extractor=Descriptor().record,
    )
    return folder


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of two models, one of which writes its answers, whose page holds `STEPS`."""
    from coattn.apps.server import Limits, make_app

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_words": len(WORDS), "region_dim": 56, "dim": 16, "embedding_dim": 8}
    words, answers = AnswerWords(["red", "blue"]), AnswerVocabulary(["yes", "no", "red"])
    writes = save(tmp_path / "writes", models.generator(num_answer_words=len(words), **sizes), words)
    chooses = save(tmp_path / "chooses", models.alternating(num_answers=3, **sizes), answers)
    app = make_app({"writes": writes, "chooses": chooses}, limits=Limits(pixels=100_000, seconds=200), page=True)

    async def with_steps(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            elif b"</html>" in message.get("body", b"") and b"coattn: ask" in message["body"]:
                message["body"] = message["body"].replace(b"</body>", script(STEPS).encode() + b"</body>")
            await send(message)

        await app(scope, receive, sending)

    server = uvicorn.Server(uvicorn.Config(with_steps, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,900", "390,844"])
def test_the_page_in_a_browser(address: str, tmp_path: Path, size: str) -> None:
    found = outcome(address, tmp_path / "profile", size=size)
    assert found.get("error") is None, found
    assert found["outside"] == []
    assert found["no_image"] == "Choose an image first, or take one of the examples."
    writes, chooses = found["results"]
    assert writes["heading"] == "writes: what color is the hexagon?"
    assert chooses["heading"] == "chooses: what color is the hexagon?"
    assert set(chooses["answers"]) == {"yes", "no", "red"}
    assert set(" ".join(writes["answers"]).replace(",", "").split()) <= {"red", "blue"}
    assert "hexagon" in chooses["doubt"]
    assert found["legend"].startswith("writes: Red regions speak for")
    assert found["maps"][0] == "dependence"
    assert " ".join(found["rows"]).replace(" ,", ",") == writes["answers"][0]
    assert found["decoder"].startswith("writes: Red regions have more than their uniform share")
    assert found["word"][1:] == ["word 1", "color"]
    assert found["word"][0].startswith("layers.")
    assert found["empty"] == "Type a question first."
    assert found["no_word"] == "the question '?!' has no word in it"
    assert found["wrong_file"].startswith("This file is not an image that can be shown.")
    assert found["large"] == "the image has 120,000 pixels; at most 100,000 are accepted, shrink it"
    assert found["overflow"] <= 0
