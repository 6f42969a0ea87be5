"""Progress of long work on stderr: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coattn._internal.terminal import printable

_SECONDS_BETWEEN_LINES = 10.0
Advance = Callable[[int], object]  # takes the amount of work done since the last call


@contextmanager
def progress(what: str, total: int, *, unit: str = "images", done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show how far a piece of work is, with its rate and the time left.

    Args:
        what: name of the work, shown first.
        total: amount of work in all.
        unit: the plural name of one piece; "B" means bytes, shown in MB.
        done: amount that was already done before.
        shown: False shows nothing.

    Yields:
        A function that takes the amount of work done since its last call. It may be called from any thread.
    """
    if not shown:
        yield lambda count: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, unit=unit, unit_scale=unit == "B", desc=what) as bar:
            yield bar.update
    else:
        lines = _Lines(what, total, unit, done)
        yield lines.update
        if lines.written > lines.began:
            lines.write(time.monotonic())


class _Lines:
    def __init__(self, what: str, total: int, unit: str, done: int) -> None:
        self.what, self.total, self.unit, self.done, self.done_before = what, total, unit, done, done
        self.began = self.written = time.monotonic()

    def update(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.written >= _SECONDS_BETWEEN_LINES:
            self.write(now)

    def write(self, now: float) -> None:
        self.written = now
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, self.unit)
        seconds = now - self.began
        rate = (self.done - self.done_before) / max(seconds, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        time_left = f", {_duration(left)} left" if self.done < self.total and rate else f" in {_duration(seconds)}"
        share = f"{self.done / scale:,.0f} of {self.total / scale:,.0f} {unit}"
        tell(f"{self.what}: {share}, {rate / scale:,.1f} {unit}/s{time_left}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def tell(text: str) -> None:
    """Write one line to stderr, above a bar if there is one. Control characters are shown as escapes."""
    line = printable(text)
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)
