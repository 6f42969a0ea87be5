"""Memory use of a process."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None  # type: ignore[assignment]


def peak_of_process() -> float | None:
    """Peak memory of this process so far, in 1e9 bytes; None where the system does not report it."""
    if (status := Path("/proc/self/status")).exists():  # getrusage would count what the parent process had
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / 1e9
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
