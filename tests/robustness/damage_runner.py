"""Damages files of all formats, reads them, and judges what happens."""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from file_formats import FORMATS
from mutations import mutate, restore

MEMORY = 2 * 2**30  # bytes that a read may use
SECONDS = 150  # for one read, which takes less than a second
CHECKED_ANEW = ("change_zip",)  # ways to change a file that also write its checksum anew


class Case(NamedTuple):
    """One damage, which the seed decides."""

    format: str
    seed: int


class Outcome(NamedTuple):
    """The result of reading a damaged file; `fault` is empty if all is well."""

    case: Case
    file: str
    way: str
    result: str
    fault: str


class Examples:
    """The undamaged files of formats, and what is read from them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._expected: dict[str, str] = {}

    def files(self, name: str) -> list[str]:
        """Files of a format that are damaged, made on first use."""
        folder = self.root / name.replace("/", "-")
        if name not in self._expected:
            folder.mkdir(parents=True)
            FORMATS[name].make(folder)
            with tempfile.TemporaryDirectory() as place:
                copy = Path(place, "files")
                shutil.copytree(folder, copy)
                self._expected[name] = repr(FORMATS[name].read(copy)).replace(place, "")
        found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        return [file for file in found if not _fits(file, FORMATS[name].untouched)]

    def try_case(self, case: Case, copy: Path) -> Outcome:
        """Damage a copy of the files in the folder `copy`, read it, and put the file back."""
        random = Random(f"{case.format} {case.seed}")
        form = FORMATS[case.format]
        folder = self.root / case.format.replace("/", "-")
        names = self.files(case.format)
        file = names[case.seed % len(names)] if case.seed < len(names) else random.choice(names)
        if not copy.exists():
            shutil.copytree(folder, copy)
        way = mutate(copy / file, random)
        same = (copy / file).is_file() and (copy / file).read_bytes() == (folder / file).read_bytes()
        result, fault = "", ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = repr(form.read(copy)).replace(str(copy.parent), "")
            result = "read"
            if _fits(file, form.hashed) and way not in CHECKED_ANEW and found != self._expected[case.format]:
                fault = "accepted, although a hash protects the file"
        except (ValueError, OSError) as error:
            result = f"{type(error).__name__}: {error}"
            if same:
                fault = f"undamaged, but refused: {result}"
            elif not any(name in str(error) for name in (Path(file).name, Path(file).parent.name, str(copy))):
                fault = f"the message does not name the file: {result}"
            elif isinstance(error, UnicodeError):
                fault = f"not a message for users: {result}"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)
            ours = [entry for entry in last if "/coattn/" in entry.filename]
            place = f"{ours[-1].filename.split('/coattn/')[-1]}:{ours[-1].lineno}" if ours else ""
            result = fault = f"{type(error).__name__} in {place}: {str(error)[:200]}"
        restore(folder, copy, file)
        if any(
            path.suffix != ".partial" and path.relative_to(copy).as_posix() not in _all(folder) for path in _files(copy)
        ):
            shutil.rmtree(copy)
        return Outcome(case, file, way, result[:300], fault[:500])


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _all(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in _files(folder)}


def _fits(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def cases(number: int, seed: int = 0) -> list[Case]:
    """Cases of all formats by their weights, at least one each."""
    total = sum(form.weight for form in FORMATS.values())
    found = []
    for name, form in FORMATS.items():
        count = max(1, round(number * form.weight / total))
        found += [Case(name, seed + index) for index in range(count)]
    return found


def run_in_children(examples: Examples, todo: list[Case], *, batch: int = 100) -> Iterator[Outcome]:
    """Try cases in forked processes, so that a signal, a hang or a waste of memory is noticed and ends only a child."""
    torch.set_num_threads(1)
    while todo:
        name = todo[0].format
        examples.files(name)
        now = [case for case in todo[:batch] if case.format == name]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(examples, now, writing)
        os.close(writing)
        done = 0
        fault = ""
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            buffered = b""
            while True:
                if not select.select([pipe], [], [], SECONDS)[0]:
                    os.kill(pid, signal.SIGKILL)
                    fault = f"did not end within {SECONDS} s"
                    break
                received = pipe.read(1 << 16)
                if not received:
                    break
                buffered += received
                *lines, buffered = buffered.split(b"\n")
                for line in lines:
                    case, *rest = json.loads(line)
                    yield Outcome(Case(*case), *rest)
                    done += 1
        _, status = os.waitpid(pid, 0)
        if done < len(now):
            fault = fault or f"the process ended with {os.waitstatus_to_exitcode(status)}"
            yield Outcome(now[done], "", "", fault, fault)
            done += 1
        todo = todo[done:]


def _child(examples: Examples, todo: list[Case], writing: int) -> None:
    """Try cases in this process, which is a child, and end it."""
    try:
        used = _address_space()
        resource.setrlimit(resource.RLIMIT_AS, (used + 6 * 2**30, resource.RLIM_INFINITY))
        with tempfile.TemporaryDirectory() as place, open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
            for case in todo:
                before = _peak()
                outcome = examples.try_case(case, Path(place, "files"))
                peak = _peak()
                if peak > MEMORY and peak > before and not outcome.fault:
                    outcome = outcome._replace(fault=f"used {peak / 2**30:.1f} GB")
                os.write(writing, (json.dumps(outcome) + "\n").encode())
    except BaseException:
        os.write(writing, b"")
        traceback.print_exc()
    finally:
        os._exit(0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Try many cases and print the faults: `python damage_runner.py NUMBER [SEED] [FORMAT ...]`."""
    import sys

    number, seed, *names = sys.argv[1:]
    todo = [case for case in cases(int(number), int(seed)) if not names or case.format in names]
    began, counts, faults = time.monotonic(), {"read": 0, "refused": 0}, 0
    with tempfile.TemporaryDirectory() as root:
        for outcome in run_in_children(Examples(Path(root)), todo):
            counts["read" if outcome.result == "read" else "refused"] += 1
            if outcome.fault:
                faults += 1
                print(
                    f"{outcome.case.format} {outcome.case.seed} {outcome.file} {outcome.way}: {outcome.fault}",
                    flush=True,
                )
    print(f"{len(todo)} cases, {counts}, {faults} faults, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
