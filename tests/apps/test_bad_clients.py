"""A real server among clients that misbehave: afterwards it answers as before."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from coattn import models
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from coattn.apps.connections import http_server
from coattn.apps.server import Limits, make_app

IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"
)
SECONDS = 0.5


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    torch.manual_seed(3)
    words = Vocabulary(["what", "color", "is", "the", "circle"])
    path = tmp_path_factory.mktemp("run") / "model"
    save_model(
        path,
        models.modular(num_words=len(words), region_dim=56, num_answers=2, dim=16, embedding_dim=8),
        answer_vocabulary=AnswerVocabulary(["yes", "no"]),
        question_vocabulary=words,
        metric="exact_match",
        activation="softmax",
        extractor=Descriptor().record,
    )
    app = make_app({"m": path}, limits=Limits(body=100_000, waiting=8, requests=4, seconds=SECONDS))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = http_server(app, SECONDS)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def head(length: int, path: str = "/ask") -> bytes:
    lines = f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {length}"
    return "\r\n".join((*lines, "", "")).encode()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=300)


def response(connection: socket.socket) -> tuple[int, Any]:
    """The status and the JSON of a response; 0 if the server closed the connection without one."""
    found = b""
    while b"\r\n\r\n" not in found:
        if not (piece := connection.recv(65536)):
            return 0, None
        found += piece
    start, _, body = found.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(start.split()[1]), json.loads(body)


def ask(port: int, **changes: Any) -> tuple[int, Any]:
    value = {"image": base64.b64encode(IMAGE).decode(), "questions": ["what color is the circle?"]} | changes
    body = json.dumps(value).encode()
    with connect(port) as connection:
        connection.sendall(head(len(body)) + body)
        return response(connection)


@pytest.fixture(autouse=True)
def _it_answers_afterwards(port: int) -> Iterator[None]:
    yield
    for _ in range(200):
        status, value = ask(port)
        if status != 503:  # the server may not have noticed yet that the clients are gone
            break
        time.sleep(0.1)
    assert status == 200, value


def test_of_a_flood_some_are_answered_and_the_rest_is_told_to_wait(port: int) -> None:
    with ThreadPoolExecutor(64) as clients:
        found = list(clients.map(lambda _: ask(port), range(400)))
    assert {status for status, _ in found} <= {200, 503}
    assert sum(status == 200 for status, _ in found) >= 4
    assert all("try again" in value["error"] for status, value in found if status == 503)


def test_a_slow_body_is_refused(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(head(100) + b'{"questions"')
        status, value = response(connection)
    assert status == 408
    assert "took too long" in value["error"]


@pytest.mark.parametrize("start", [b"", b"POST /ask HT", head(10)[:-2]])
def test_a_connection_without_a_request_is_closed(port: int, start: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(start)
        assert response(connection) == (0, None)


def test_a_slow_second_request_is_closed_too(port: int) -> None:
    with connect(port) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert response(connection)[0] == 200
        connection.sendall(b"GET /hea")
        assert response(connection) == (0, None)


def test_half_a_body(port: int) -> None:
    for _ in range(20):
        with connect(port) as connection:
            connection.sendall(head(1000) + b'{"questions": ["what')


def test_ten_thousand_questions(port: int) -> None:
    status, value = ask(port, questions=["is"] * 10_000)
    assert status == 422
    assert "length <= 64" in value["error"]


def test_bytes_that_are_no_request(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert b"400" in connection.recv(65536)
