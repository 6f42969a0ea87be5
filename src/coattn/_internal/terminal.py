"""The exit status of commands, and output that cannot control the terminal: answers and files may come from anybody."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from .files import error_text

# All control characters of Unicode but tab and line feed; characters that break a line or reverse its direction; and
# halves of surrogate pairs, which no terminal can show. A carriage return is let through at the two ends of a write,
# where progress bars put it, and so is a write that only moves the cursor between bars.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|(?<!^)\r(?!$)")
_BETWEEN_BARS = re.compile(r"\n*(\x1b\[A)*")


def printable(text: str) -> str:
    r"""A text with its control characters written as \u001b, which is also valid inside a JSON string."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _PrintableStream:
    """A text stream that escapes what is written to it, and is otherwise the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text if _BETWEEN_BARS.fullmatch(text) else printable(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Escape control characters in all that is written to standard output and standard error meanwhile."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_PrintableStream(stream) for stream in streams)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def exit_status(run: Callable[[], int]) -> int:
    """Run a command.

    A mistake of the user (ValueError, OSError, a missing package) becomes one line on standard error. With
    COATTN_TRACEBACK=1 in the environment it remains an exception. Control characters in the output are escaped.

    Returns:
        The exit status: 0 if all is done, 1 if some items could not be processed, 2 if the user has to change
        something, 130 if interrupted, 141 if the reader of the output closed it.
    """
    with printable_output():
        try:
            status = run()
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # the reader, for example `head`, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except KeyboardInterrupt:
            print("coattn: interrupted", file=sys.stderr)
            return 130
        except (ValueError, OSError, ModuleNotFoundError) as error:
            if os.environ.get("COATTN_TRACEBACK") == "1":
                raise
            print(f"coattn: error: {error_text(error)}", file=sys.stderr)
            return 2
