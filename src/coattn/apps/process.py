"""An object in another process, whose methods this process calls.

The server keeps each model so: a model that computes does not hold Python's lock while requests are read and written.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import signal
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_SECONDS_TO_END = 5.0


class ProcessLostError(Exception):
    """The process ended before it answered."""


class RemoteObject:
    """An object that is made, and whose methods run, in another process.

    Args:
        make: makes the object; a function or class of a module, with `arguments` that can be pickled.
        arguments: of `make`.

    Raises:
        Exception: whatever `make` raises.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._made = (make, arguments)
        self._start()

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method. Calls must not overlap.

        Raises:
            ProcessLostError: the process ended; a new one has been started.
            Exception: whatever the method raises.
        """
        if not self._process.is_alive():  # killed while it waited
            self._restart()
        try:
            self._connection.send((method, arguments))
            found = self._connection.recv()
        except (EOFError, OSError):
            self._restart()
            raise ProcessLostError("the process of the model ended; a new one has started") from None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the process after the call that it works on."""
        self._connection.close()
        self._process.join(_SECONDS_TO_END)
        self._process.kill()
        self._process.join()
        atexit.unregister(self.close)

    def _restart(self) -> None:
        self.close()
        self._start()

    def _start(self) -> None:
        atexit.register(self.close)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer_calls, args=(theirs, *self._made), daemon=True)
        self._process.start()
        theirs.close()
        try:
            failure = self._connection.recv()
        except EOFError:
            failure = ProcessLostError("the process of the model ended while it read the model")
        if failure is not None:
            self.close()
            raise failure


def _answer_calls(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Make the object and call its methods until the other end of the connection is closed."""
    # A signal to the whole group asks the server to end, which needs this process for its last requests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", category=UserWarning, module="coattn")  # answers carry them as reasons
    try:
        made = make(*arguments)
    except Exception as error:
        connection.send(error)
        return
    gc.freeze()  # a collection then does not go through all that the libraries made, which delays single answers
    connection.send(None)
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            found = getattr(made, method)(*given)
        except ValueError as error:
            found = error
        except Exception as error:
            traceback.print_exc()
            found = RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(found)
