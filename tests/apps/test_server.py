from __future__ import annotations

import asyncio
import base64
import io
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from starlette.testclient import TestClient

from coattn.apps.answering import Answered, AnsweringModel, Job, UnknownImageError, load_predictor
from coattn.apps.connections import http_server
from coattn.apps.schema import AskRequest, AskResponse, json_schema, openapi_document
from coattn.apps.served import ServedModel
from coattn.apps.server import Limits, make_app, serve
from coattn.cli.serve import named_folders

WORDS = Vocabulary(["what", "color", "is", "the", "circle"])
ANSWERS = AnswerVocabulary(["yes", "no", "red", "blue"])
QUESTION = "what color is the circle?"


def png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("run") / "model"
    save_model(
        path,
        models.modular(num_words=len(WORDS), region_dim=56, num_answers=4, dim=16, embedding_dim=8),
        answer_vocabulary=ANSWERS,
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="softmax",
        extractor=Descriptor().record,
    )
    return path


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    limits = Limits(body=200_000, pixels=100_000, waiting=32, seconds=120)
    app = make_app({"first": folder, "second": folder}, limits=limits, page=True)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def body(**changes: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(png()).decode(), "questions": [QUESTION]} | changes


def test_a_model_directory_leaves_half_of_the_cores_to_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("coattn.features.extract.processes.num_cores", lambda: 6)
    try:
        load_predictor(folder)
        assert torch.get_num_threads() == 3
        load_predictor(folder, num_threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_answers_are_those_of_the_predictor(client: TestClient, folder: Path) -> None:
    from coattn.predictor import Predictor

    response = client.post("/ask", json=body(questions=[QUESTION, "is the hexagon the circle"], top_k=2))
    assert response.status_code == 200
    value = response.json()
    assert (value["model"], value["width"], value["height"]) == ("first", 40, 30)
    expected = Predictor.load(folder).ask(png(), QUESTION, top_k=2)
    found = value["results"][0]["answers"]
    assert [answer["answer"] for answer in found] == [answer.text for answer in expected]
    assert [answer["confidence"] for answer in found] == pytest.approx([a.confidence for a in expected], abs=1e-6)
    assert value["results"][1]["unknown_words"] == ["hexagon"]
    assert "hexagon" in value["results"][1]["reasons"][0]


def test_a_known_image_is_not_encoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AnsweringModel(folder, 100_000)
    assert model.encode("a", png(5)) == 1
    monkeypatch.setattr(model.predictor, "encode", lambda *_: pytest.fail("encoded again"))
    assert model.encode("a", png(5)) == 1
    first, unknown, again = model.ask(
        [Job(name, QUESTION, top_k, None) for name, top_k in (("a", 2), ("b", 2), ("a", 1))]
    )
    assert isinstance(first, Answered)
    assert isinstance(again, Answered)
    assert isinstance(unknown, UnknownImageError)
    assert (first.answers[0], len(first.answers), len(again.answers)) == (again.answers[0], 2, 1)
    assert first.size == (40, 30)


def test_an_image_is_asked_about_again_by_its_id(client: TestClient) -> None:
    first = client.post("/ask", json=body()).json()
    again = client.post("/ask", json={"image_id": first["image_id"], "questions": [QUESTION]})
    assert again.status_code == 200
    assert again.json() == first


def test_a_form_is_as_good_as_json(client: TestClient) -> None:
    files = {"image": ("photo.png", png(), "image/png")}
    response = client.post("/models/second/ask", files=files, data={"question": [QUESTION, "is it"], "top_k": "1"})
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "second"
    assert [result["question"] for result in response.json()["results"]] == [QUESTION, "is it"]
    assert (
        response.json()["results"][0]["answers"]
        == client.post("/ask", json=body(top_k=1)).json()["results"][0]["answers"]
    )


def test_explanations(client: TestClient) -> None:
    found = client.post("/ask", json=body(map="dependence")).json()["results"][0]["map"]
    assert found["signed"]
    assert len(found["regions"]) == 16
    assert [word["word"] for word in found["words"]] == ["what", "color", "is", "the", "circle"]
    assert base64.b64decode(found["picture"]).startswith(b"\x89PNG")
    names = {choice["name"]: choice for choice in found["choices"]}
    assert names["pooling.regions"]["rows"] is None
    pooled = client.post("/ask", json=body(map="pooling.regions")).json()["results"][0]["map"]
    assert sum(region["weight"] for region in pooled["regions"]) == pytest.approx(1, abs=1e-4)
    assert pooled["uniform"] == pytest.approx(1 / 16)
    wrong = client.post("/ask", json=body(map="pooling.everything"))
    assert wrong.status_code == 422
    assert "no map is called" in wrong.json()["error"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"questions": []}, 422, "length >= 1"),
        ({"questions": ["x"] * 65}, 422, "length <= 64"),
        ({"questions": ["a" * 2001]}, 422, "length <= 2000"),
        ({"questions": [7]}, 422, "Expected `str`"),
        ({"questions": ["???"]}, 422, "has no word in it"),
        ({"top_k": 0}, 422, ">= 1"),
        ({"unknown": 1}, 422, "unknown field"),
        ({"image": "aGFsbG8="}, 422, "not an image"),
        ({"image": "?"}, 422, "base64"),
        ({"image": None}, 422, "exactly one of image and image_id"),
        ({"image_id": "x"}, 422, "exactly one of image and image_id"),
        ({"image": None, "image_id": "../etc/passwd"}, 404, "send the image again"),
        ({"image": base64.b64encode(png(size=(400, 300))).decode()}, 413, "larger than 200,000 bytes"),
    ],
)
def test_bad_requests(client: TestClient, changes: dict[str, Any], status: int, message: str) -> None:
    response = client.post("/ask", json=body(**changes))
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text
    assert client.post("/ask", json=body()).status_code == 200  # and the server goes on


def test_a_failure_of_the_server_is_told_as_json(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ServedModel, "answer")
    response = client.post("/ask", json=body())
    assert (response.status_code, response.json()) == (500, {"error": "the server failed; its log says why"})


def test_an_exported_model_refuses_explanations_without_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AnsweringModel(folder, max_pixels=100_000)
    monkeypatch.setattr(model, "explains", lambda: False)
    monkeypatch.setitem(sys.modules, "coattn.explain.methods", None)  # imports torch
    with pytest.raises(ValueError, match="an exported model has no explanations"):
        model.explain("", QUESTION, "ablation", AskRequest(questions=[QUESTION]))


def test_too_many_pixels_are_refused_before_they_are_decoded(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG")
    response = client.post("/ask", json=body(image=base64.b64encode(file.getvalue()).decode()))
    assert response.status_code == 422
    assert "at most 100,000" in response.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"nonsense", "application/json", 400),
        (b"[" * 100_000, "application/json", 422),
        (b"x", "text/plain", 415),
        (b"--x\r\n", "multipart/form-data; boundary=x", 422),
        (b"x", "multipart/form-data", 400),
    ],
)
def test_bad_bodies(client: TestClient, content: bytes, kind: str, status: int) -> None:
    response = client.post("/ask", content=content, headers={"content-type": kind})
    assert response.status_code == status, response.text
    assert response.json()["error"]


def test_pages_and_counters(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["first", "second"]}
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["first", "second"]
    assert client.get("/nothing").status_code == 404
    assert client.put("/ask").status_code == 405
    assert client.post("/models/frist/ask", json=body()).json()["error"].endswith("did you mean 'first'?")
    client.post("/ask", json=body())
    metrics = client.get("/metrics").text
    assert 'coattn_requests_total{status="200"}' in metrics
    assert 'coattn_questions_total{model="first"}' in metrics
    assert client.get("/schema").json().keys() >= {"AskRequest", "AskResponse", "Problem"}
    assert client.get("/openapi.json").json() == openapi_document()


def test_the_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for page in ("/", "/docs"):
        response = client.get(page)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        for mark in ("http://", "https://", "//cdn", "@import", 'src="/', "url("):
            assert mark not in response.text


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"host": "[", "origin": "null"}]
)
def test_foreign_hosts_and_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/health", headers=headers).status_code == 403


def test_too_many_waiting_questions_are_refused(client: TestClient) -> None:
    response = client.post("/ask", json=body(questions=["what is the circle"] * 33))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


def test_schema_describes_what_is_sent(client: TestClient) -> None:
    import msgspec

    response = client.post("/ask", json=body(map="dependence"))
    msgspec.json.decode(response.content, type=AskResponse, strict=True)
    assert set(json_schema()["AskRequest"]["properties"]) == {
        field.name for field in msgspec.structs.fields(AskRequest)
    }


def test_names_of_models(tmp_path: Path) -> None:
    assert named_folders(["runs/mine/model", "b=x"]) == {"mine": Path("runs/mine/model"), "b": Path("x")}
    with pytest.raises(ValueError, match="two models are called 'mine'"):
        named_folders(["runs/mine/model", "runs/mine"])


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve({"first": folder}, port=port)


def test_the_command_serves_writes_nothing_and_ends_on_sigterm(folder: Path) -> None:
    # As on a full disk, no file can grow.
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); runpy.run_module('coattn')"
    command = [sys.executable, "-c", limited, "serve", f"m={folder}", "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = line.split()[2].removesuffix("/ask;")
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"{address}/health") as response:
                    assert response.read() == b'{"status":"ok","models":["m"]}'
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the server did not start")
        form = {"image": ("photo.png", png(size=(800, 700)))}  # a form of more than 1 MB is usually kept on the disk
        assert httpx.post(f"{address}/ask", files=form, data={"question": QUESTION}, timeout=300).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(300) in (0, -signal.SIGTERM, 143)


def test_a_word_of_a_request_is_a_word_of_the_question(client: TestClient) -> None:
    assert all(model["explains"] for model in client.get("/models").json()["models"])
    name = "layers.2.regions_to_question"
    found = client.post("/ask", json=body(map=name, word=4)).json()["results"][0]["map"]
    assert found["written"] == []
    assert any(region["weight"] for region in found["regions"])
    assert not any(word["weight"] for word in found["words"])
    response = client.post("/ask", json=body(map=name, word=5))
    assert response.status_code == 422
    assert response.json()["error"] == "the question has the words 0 to 4, not 5"


def test_after_a_killed_process_the_image_is_sent_again(client: TestClient) -> None:
    first = client.post("/ask", json=body()).json()
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    lost = client.post("/ask", json={"image_id": first["image_id"], "questions": [QUESTION]})
    assert (lost.status_code, "send the image again" in lost.json()["error"]) == (404, True)
    assert client.get("/models").json()["models"][0]["images"] == 0
    assert client.post("/ask", json=body()).json() == first


def test_a_second_ctrl_c_does_not_wait_for_a_stuck_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coattn.apps.process._SECONDS_TO_END", 0.1)
    others = multiprocessing.active_children()
    app = make_app({"m": folder})
    (process,) = (child for child in multiprocessing.active_children() if child not in others)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as client, socket.create_server(("127.0.0.1", 0)) as listener:
        server = http_server(app, 600)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/ask"
        answer = client.submit(httpx.post, address, json=body(), timeout=300)
        while not server.server_state.tasks:
            time.sleep(0.01)
        server.should_exit = server.force_exit = True  # as the second SIGINT sets them
        thread.join(300)
        assert not thread.is_alive()
        assert (answer.result().status_code, answer.result().json()) == (503, {"error": "the server has been stopped"})
    assert not process.is_alive()
    assert "Traceback" not in capfd.readouterr().err


def test_if_a_model_cannot_be_read_all_are_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []
    at_the_same_time = threading.Barrier(4, timeout=300)

    class Model:
        def __init__(self, name: str, folder: Path, **settings: Any) -> None:
            self.name, self.missing = name, "it has no index" if name == "first" else ""

        def close(self) -> None:
            at_the_same_time.wait()
            closed.append(self.name)

        def wait(self) -> None:
            if self.name == "bad":
                raise ValueError("it cannot be read")

    monkeypatch.setattr("coattn.apps.server.ServedModel", Model)
    with pytest.raises(ValueError, match="cannot be read"):
        make_app(dict.fromkeys(["first", "second", "bad", "last"], Path()))
    assert sorted(closed) == ["bad", "first", "last", "second"]
    assert capsys.readouterr().err == "coattn: note: it has no index\n"


def test_only_an_unknown_image_is_sent_to_the_process(folder: Path) -> None:
    async def main() -> list[str]:
        model = ServedModel("m", folder, max_pixels=100_000, max_batch=8, max_waiting=8, max_seconds=600)
        model.wait()
        assert f"run `coattn certify {folder}" in model.missing
        methods: list[str] = []
        call = model._model.call

        def called(method: str, *arguments: Any) -> Any:
            methods.append(method)
            return call(method, *arguments)

        model._model.call = called  # type: ignore[method-assign]
        request = AskRequest(questions=[QUESTION], image=png())
        try:
            first = await model.answer(request)
            assert model.num_images == 1
            assert await model.answer(request) == first
            model._model._process.kill()
            model._model._process.join()
            assert await model.answer(request) == first
        finally:
            model.close()
        return methods

    assert asyncio.run(main()) == ["ask", "encode", "ask", "ask", "ask", "encode", "ask"]
