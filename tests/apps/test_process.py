from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections import Counter

import pytest

from coattn.apps.process import ProcessLostError, RemoteObject


def test_methods_run_in_another_process_that_keeps_the_object() -> None:
    remote = RemoteObject(Counter, "aab")
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
    remote = RemoteObject(functools.partial, os._exit, 3)
    try:
        for _ in range(2):  # in the first process, and in its successor
            with pytest.raises(ProcessLostError):
                remote.call("__call__")
    finally:
        remote.close()


def test_a_failure_to_make_the_object_is_raised() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        RemoteObject(int, "x")
    assert not multiprocessing.active_children()
