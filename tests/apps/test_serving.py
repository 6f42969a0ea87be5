from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from small_model import QUESTION, body, png, save_small_model

from coattn.apps.answering import Answered, AnsweringModel, Job, UnknownImageError, load_predictor
from coattn.apps.connections import http_server
from coattn.apps.schema import AskRequest
from coattn.apps.served import ServedModel
from coattn.apps.server import make_app, serve
from coattn.cli.serve import named_folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("run") / "model")


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


def test_an_exported_model_refuses_explanations_without_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AnsweringModel(folder, max_pixels=100_000)
    monkeypatch.setattr(model, "explains", lambda: False)
    monkeypatch.setitem(sys.modules, "coattn.explain.methods", None)  # imports torch
    with pytest.raises(ValueError, match="an exported model has no explanations"):
        model.explain("", QUESTION, "ablation", AskRequest(questions=[QUESTION]))


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
