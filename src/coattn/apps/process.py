"""An object in another process, whose methods this process calls.

The server keeps each model so: a model that computes does not hold Python's lock while requests are read and written.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_SECONDS_TO_END = 5.0
_SECONDS_TO_START = 600.0  # of a new process, which reads the model again
_BYTES_SENT_AT_ONCE = 1 << 15  # as many fit into a connection whose other end does not read


class ProcessLostError(Exception):
    """The process ended before it answered."""


class RemoteObject:
    """An object that is made, and whose methods run, in another process. The first call waits until it is made.

    Args:
        make: makes the object; a function or class of a module, with `arguments` that can be pickled.
        arguments: of `make`.
        max_seconds: the time limit of a call.
        on_restart: called when a new process is about to replace one that ended.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        *arguments: Any,
        max_seconds: float,
        on_restart: Callable[[], object] = lambda: None,
    ) -> None:
        self._made, self._max_seconds, self._on_restart = (make, arguments), max_seconds, on_restart
        self._lock = threading.Lock()  # of the connection: one call at a time
        self._closed = False
        atexit.register(self.close)
        self._start()

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method. A call waits for the one before it.

        Raises:
            ProcessLostError: the process ended, or exceeded the time limit and was killed; a new one has been started
                unless the message says otherwise.
            Exception: whatever the method raises; the first call also whatever `make` raises.
        """
        with self._lock:
            if self._starting:
                self._wait_until_made()
            elif not self._closed and not self._process.is_alive():  # killed while it waited
                self._restart()
            if self._closed:
                raise ProcessLostError("the process of the model is closed")
            message = pickle.dumps((method, arguments))
            waits_to_send = len(message) > _BYTES_SENT_AT_ONCE
            try:
                with _killed_after(self._max_seconds if waits_to_send else None, self._process):
                    self._connection.send_bytes(message)
                if not self._connection.poll(self._max_seconds):
                    self._process.kill()  # nothing more can be received then
                found = self._connection.recv()
            except (EOFError, OSError):
                self._restart()
                raise ProcessLostError("the process of the model ended or took too long; a new one works now") from None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the process after the call that it works on, or kill it if that takes more than some seconds."""
        self._closed = True
        atexit.unregister(self.close)
        seconds = _SECONDS_TO_END
        while not self._lock.acquire(timeout=seconds):
            self._process.kill()  # the call then fails
            seconds = 0.1
        try:
            self._end()
        finally:
            self._lock.release()

    def _end(self) -> None:
        self._connection.close()
        self._process.join(_SECONDS_TO_END)
        self._process.kill()
        self._process.join()

    def _restart(self) -> None:
        self._end()
        if self._closed:
            raise ProcessLostError("the process of the model was closed")
        self._on_restart()
        self._start()
        try:
            self._wait_until_made(_SECONDS_TO_START)
        except Exception as error:
            traceback.print_exc()
            raise ProcessLostError("the model cannot be read again; the log of the server says why") from error

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer_calls, args=(theirs, *self._made), daemon=True)
        self._process.start()
        self._starting = True
        theirs.close()

    def _wait_until_made(self, max_seconds: float | None = None) -> None:
        self._starting = False
        failure: Exception | None
        try:
            with _killed_after(max_seconds, self._process):
                failure = self._connection.recv()
        except (EOFError, OSError):
            failure = ProcessLostError("the process of the model ended while it read the model")
        except BaseException:  # such as Ctrl-C
            self._end()
            raise
        if failure is not None:
            self._end()
            raise failure


@contextmanager
def _killed_after(seconds: float | None, process: BaseProcess) -> Iterator[None]:
    """Kill the process if the block takes longer."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _answer_calls(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Make the object and call its methods until the other end of the connection is closed."""
    # A signal to the whole group asks the server to end, which needs this process for its last requests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", category=UserWarning, module="coattn")  # answers carry them as reasons
    try:
        try:
            made = make(*arguments)
        except Exception as error:
            connection.send(error)
            return
        gc.freeze()  # a collection then does not go through all that the libraries made, which delays single answers
        connection.send(None)
        while True:
            method, given = connection.recv()
            connection.send(_outcome(made, method, given))
    except (EOFError, ConnectionError):  # the other end is closed
        return


def _outcome(made: Any, method: str, given: tuple[Any, ...]) -> Any:
    """The result of a method, or what it raised."""
    try:
        return getattr(made, method)(*given)
    except ValueError as error:
        return error
    except Exception as error:
        traceback.print_exc()
        return RuntimeError(f"{type(error).__name__}: {error}")
