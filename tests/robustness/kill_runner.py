"""Kills commands or fills their disk, looks at what they leave, runs them again, and compares with undisturbed runs."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple

import torch
from long_commands import COMMANDS, SMALL_SHARDS, LongCommand
from model_files import trained

from coattn.cli import main as coattn

_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod", "shutil.rmtree")


class Kill(NamedTuple):
    """The outcome of one kill or full disk; `fault` is empty if all is well."""

    command: str
    moment: str
    fault: str


def start(
    arguments: list[str],
    place: Path,
    *,
    stop_before: int = -1,
    largest: int = resource.RLIM_INFINITY,
    output: IO[bytes] | None = None,
) -> int:
    """Run a command in a forked process, which shares the imports of this one, and return its process id.

    Args:
        arguments: of the command.
        place: the folder whose files it works on; its number of operations there is written into `place`.operations.
        stop_before: kill the process right before this operation on the files of the folder; -1 never does.
        largest: the bytes of a file above which writing fails, as on a full disk.
        output: receives what it prints, in place of the end of `place`.log.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setpgid(0, 0)
        with output or open(place.with_suffix(".log"), "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        count = 0

        def watch(event: str, details: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event in _WRITES or (
                event == "open" and isinstance(details[1], str) and set(details[1]) & set("wa+x")
            )
            if writes and str(place) in str(details[0]):
                if count == stop_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(watch)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        status = coattn(arguments)
        with open(place.with_suffix(".operations"), "w") as file:
            file.write(str(count))
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def seen(result: Callable[[Path], Any], folder: Path) -> Any:
    """The output of the command, without the name of the folder; None if it is missing or refused."""
    try:
        return repr(result(folder)).replace(str(folder), "")
    except (ValueError, OSError):
        return None


def listing(folder: Path, ignored: tuple[str, ...]) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(path) for path in found if not set(path.parts) & set(ignored)}


class Killing:
    """One command, run once without a kill for comparison."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root / name.replace(" ", "-")
        self.command: LongCommand = COMMANDS[name]
        self.inputs, self.place = self.root / "inputs", self.root / "work"
        self.place.mkdir(parents=True)
        self.command.make(self.place)  # here and not in `inputs`, because files may hold their paths
        shutil.copytree(self.place, self.inputs)
        self.old = seen(self.command.result, self.place)
        self._run("without a kill")  # the first run also warms up what the second takes its time from
        self.expected, self.files = self._state()
        self._lay_out()
        began = time.monotonic()
        self._run("without a kill")
        self.seconds = time.monotonic() - began
        self.operations = int(self.place.with_suffix(".operations").read_text())
        if self._state() != (self.expected, self.files):
            raise AssertionError(f"{name}: two runs without a kill differ")

    def kill(self, random: Random, *, at_operation: bool) -> Kill:
        """Kill the command once, at a random moment or before a random operation on files."""
        self._lay_out()
        arguments = [str(argument) for argument in self.command.arguments(self.place)]
        if at_operation:
            number = random.randrange(self.operations)
            moment = f"before operation {number + 1} of {self.operations}"
            wait(start(arguments, self.place, stop_before=number))
        else:
            delay = random.uniform(0.0, self.seconds)
            moment = f"after {delay:.3f} of {self.seconds:.3f} s"
            pid = start(arguments, self.place)
            time.sleep(delay)
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(pid, signal.SIGKILL)
            wait(pid)
        return Kill(self.name, moment, self._fault())

    def fill(self) -> Kill:
        """Run the command where its largest file is too large for the disk."""
        before = {path.relative_to(self.inputs): path.stat().st_mtime_ns for path in self.inputs.rglob("*")}
        sizes = [
            path.stat().st_size
            for path in self.place.rglob("*")
            if path.is_file() and before.get(path.relative_to(self.place)) != path.stat().st_mtime_ns
        ]
        largest = max(sizes) - 1
        self._lay_out()
        arguments = [str(argument) for argument in self.command.arguments(self.place)]
        log = self.place.with_suffix(".log")
        # Another process writes the log, because the limit holds for all files of the command, its log included.
        with log.open("wb") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as printer:
            status = wait(start(arguments, self.place, largest=largest, output=printer.stdin))
        said = log.read_text(errors="replace")
        fault = (
            ""
            if status == 2 and "File too large" in said and str(self.place) in said
            else f"status {status}: {said[-500:]}"
        )
        return Kill(self.name, f"with no file above {largest} bytes", fault or self._fault())

    def _fault(self) -> str:
        found = seen(self.command.result, self.place)
        if found not in (None, self.old, self.expected):
            return f"accepted, although it is neither the old nor the new state: {self._difference(found)}"
        if found is None and self.old is not None and self.command.replaces and "run it again" not in self._why():
            return f"the old state is gone: {self._why()}"
        try:
            self._run("again")
        except AssertionError as error:
            if found != self.expected:  # a command may refuse to replace a result
                return str(error)
        again, files = self._state()
        if again != self.expected:
            return f"the rerun has another result: {self._difference(again)}"
        if files != self.files:
            return f"left over: {sorted(files - self.files)[:4]}, missing: {sorted(self.files - files)[:4]}"
        return ""

    def _why(self) -> str:
        try:
            self.command.result(self.place)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    def _difference(self, found: str | None) -> str:
        pairs = [(a, b) for a, b in zip((found or "None").split(","), self.expected.split(","), strict=False) if a != b]
        return "; ".join(f"{a} instead of {b}" for a, b in pairs[:2])[:400]

    def _lay_out(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.inputs, self.place)
        self.place.with_suffix(".log").unlink(missing_ok=True)

    def _run(self, how: str) -> None:
        arguments = [str(argument) for argument in self.command.arguments(self.place)]
        if status := wait(start(arguments, self.place)):
            end = self.place.with_suffix(".log").read_text(errors="replace").strip().splitlines()[-3:]
            raise AssertionError(f"run {how}: exit status {status}: {end}")

    def _state(self) -> tuple[str, set[str]]:
        return repr(self.command.result(self.place)).replace(str(self.place), ""), listing(
            self.place, self.command.ignored
        )


def _prepare() -> None:
    torch.set_num_threads(1)
    for module, name in SMALL_SHARDS:
        setattr(module, name, 3)
    coattn(["test", "--config", str(trained() / "run.yaml")])


def fill_all(root: Path, names: tuple[str, ...] = ()) -> Iterator[Kill]:
    """Run each command where its largest file is too large."""
    _prepare()
    for name in names or COMMANDS:
        killing = Killing(name, root)
        yield killing.fill()
        shutil.rmtree(killing.root)


def kill_all(root: Path, *, share: float = 1.0, seed: int = 0, names: tuple[str, ...] = ()) -> Iterator[Kill]:
    """Kill all commands, half of the times at a random moment and half of them before a file operation."""
    _prepare()
    for name in names or COMMANDS:
        killing = Killing(name, root)
        random = Random(f"{name} {seed}")
        for number in range(max(1, round(share * COMMANDS[name].kills))):
            yield killing.kill(random, at_operation=bool(number % 2))
        shutil.rmtree(killing.root)


def main() -> None:
    """Kill and print the faults: `python kill_runner.py SHARE SEED [COMMAND ...]`; a share of 0 fills the disk."""
    share, seed, *names = sys.argv[1:]
    began, kills, faults = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as root:
        chosen = tuple(names)
        found = kill_all(Path(root), share=float(share), seed=int(seed), names=chosen)
        for kill in found if float(share) else fill_all(Path(root), chosen):
            kills += 1
            faults += bool(kill.fault)
            print(f"{kill.command}, {kill.moment}: {kill.fault or 'fine'}", flush=True)
    print(f"{kills} kills, {faults} faults, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
