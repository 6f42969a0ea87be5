"""Signals that ask a command to stop.

Training stops after a step, with a checkpoint. Everything else stops at once, with a non-zero status.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Stopped(SystemExit):
    """A signal ended the command. The exit status is 128 plus its number, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Signals:
    """The signal that asked this process to stop.

    Attributes:
        received: its number, or 0.
        deferred: whether a signal is only noted, because training looks at `received` after each step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal while training runs, else end the command. A second Ctrl-C always ends it."""
        again, self.received = self.received, number
        if not self.deferred or (again and number == signal.SIGINT):
            raise Stopped(number)
        if not again:
            hint = "; press Ctrl-C again to quit at once" if number == signal.SIGINT else ""
            print(f"\ncoattn: saving after this step{hint}", file=sys.stderr, flush=True)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside; one that is ignored (nohup) stays ignored, and other threads than the first leave
        all as they are."""
        previous = {}
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
            for number in numbers:
                if signal.getsignal(number) != signal.SIG_IGN:
                    previous[number] = signal.signal(number, self.handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.received, self.deferred = 0, False


SIGNALS = Signals()
