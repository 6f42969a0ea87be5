from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coattn.apps.process import ProcessLostError, RemoteObject


def test_methods_run_in_another_process_that_keeps_the_object() -> None:
    remote = RemoteObject(Counter, "aab", max_seconds=600)
    try:
        remote.call("update", "b")
        assert remote.call("most_common") == [("a", 2), ("b", 2)]
        with pytest.raises(RuntimeError, match="TypeError: "):
            remote.call("update", 7)
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)  # ignored: the server ends the process
        assert remote.call("total") == 4
        process.kill()
        process.join()
        assert remote.call("total") == 3  # a new object in a new process
    finally:
        remote.close()
    assert not multiprocessing.active_children()


def test_a_call_in_which_the_process_ends_fails() -> None:
    remote = RemoteObject(functools.partial, os._exit, 3, max_seconds=600)
    try:
        for _ in range(2):  # in the first process, and in its successor
            with pytest.raises(ProcessLostError):
                remote.call("__call__")
    finally:
        remote.close()


def test_a_failure_to_make_the_object_is_raised() -> None:
    remote = RemoteObject(int, "x", max_seconds=600)
    with pytest.raises(ValueError, match="invalid literal"):
        remote.call("bit_length")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("size", [1, 1 << 22])  # the larger one does not fit into the connection
def test_a_stuck_process_is_replaced_after_the_time_limit(size: int) -> None:
    restarts: list[int] = []
    remote = RemoteObject(Counter, "aab", max_seconds=600, on_restart=lambda: restarts.append(1))
    try:
        assert remote.call("total") == 3
        remote._max_seconds = 0.2
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ProcessLostError, match="took too long"):
            remote.call("update", "b" * size)
        assert restarts == [1]
        remote._max_seconds = 60
        assert remote.call("total") == 3
    finally:
        remote.close()


def test_closing_does_not_wait_for_a_stuck_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coattn.apps.process._SECONDS_TO_END", 0.1)
    remote = RemoteObject(int, 7, max_seconds=600)
    assert remote.call("__str__") == "7"
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            remote.call("__str__")
        except ProcessLostError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not remote._lock.locked():
        time.sleep(0.01)
    remote.close()
    thread.join(300)
    assert not thread.is_alive()
    assert "closed" in str(raised[0])
    assert not multiprocessing.active_children()
    with pytest.raises(ProcessLostError, match="closed"):
        remote.call("__str__")


def test_a_process_that_cannot_be_replaced_is_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model"
    path.write_text("7")
    remote = RemoteObject(_read_number, path, max_seconds=600)
    try:
        assert remote.call("bit_length") == 3
        path.write_text("seven")
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(ProcessLostError, match="cannot be read again") as caught:
            remote.call("bit_length")
        assert str(path) not in str(caught.value)
        assert "ValueError: invalid literal" in capfd.readouterr().err
        path.write_text("8")
        assert remote.call("bit_length") == 4
    finally:
        remote.close()


def test_calls_do_not_overlap() -> None:
    remote = RemoteObject(Counter, "aab", max_seconds=600)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda number: remote.call("get", "a", number), range(100)))
            assert found == [2] * 100
            assert list(threads.map(lambda number: remote.call("get", "c", number), range(100))) == list(range(100))
    finally:
        remote.close()


def _read_number(path: Path) -> int:
    return int(path.read_text())
