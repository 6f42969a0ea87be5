from __future__ import annotations

import base64
import io
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from small_model import QUESTION, body, png, save_small_model
from starlette.testclient import TestClient

from coattn.apps.schema import AskRequest, AskResponse, json_schema, openapi_document
from coattn.apps.served import ServedModel
from coattn.apps.server import Limits, make_app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    limits = Limits(body=200_000, pixels=100_000, waiting=32, seconds=120)
    app = make_app({"first": folder, "second": folder}, limits=limits, page=True)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


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
