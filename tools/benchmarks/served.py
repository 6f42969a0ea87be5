"""Servers of one model on the loopback interface and the load on them, in separate processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.turns import environment

CLIENTS = 16
_HERE = Path(__file__).parent


class Server(NamedTuple):
    """A server that accepts connections.

    Attributes:
        port: on the loopback interface.
        path: of questions.
        pid: its process.
    """

    port: int
    path: str
    pid: int


@contextmanager
def running(command: Sequence[Any], port: int, path: str) -> Iterator[Server]:
    """Start a server and stop it at the end.

    Raises:
        RuntimeError: it ended, or accepts no connection within two minutes.
    """
    words, quiet = list(map(str, command)), subprocess.DEVNULL
    with subprocess.Popen(words, env=environment(), stdout=quiet, start_new_session=True) as process:
        try:
            for _ in range(1200):
                if process.poll() is not None:
                    break
                with socket.socket() as connection:
                    if connection.connect_ex(("127.0.0.1", port)) == 0:
                        yield Server(port, path, process.pid)
                        return
                time.sleep(0.1)
            raise RuntimeError(f"{' '.join(words)} did not start")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # SIGTERM leaves the processes of LitServe alive


@contextmanager
def coattn_server(folder: Path) -> Iterator[Server]:
    """`coattn serve`, as a user starts it."""
    port = _free_port()
    with running([sys.executable, "-m", "coattn", "serve", f"m={folder}", "--port", port], port, "/ask") as server:
        yield server


@contextmanager
def litserve_server(folder: Path) -> Iterator[Server]:
    """The same model behind LitServe, see `litserve_server.py`."""
    port = _free_port()
    with running([sys.executable, "-P", _HERE / "litserve_server.py", folder, port], port, "/predict") as server:
        yield server


def ask_all(server: Server, requests: int, clients: int = CLIENTS) -> dict[str, float]:
    """The rate and the latencies of requests, see `load.py`."""
    command = [sys.executable, "-P", _HERE / "load.py", server.port, server.path, clients, requests]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def resident_megabytes(pid: int) -> float:
    """Memory of a process."""
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
