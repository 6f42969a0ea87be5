"""Make the environment that the other tools run in: `tools/setup [--lowest]`. Needs the standard library only.

The environment is `.venv` (`.venv-lowest` for `--lowest`): the package, editable, with every extra and the developers'
dependency group. A stamp in it, written last, says what it was made from: while that is unchanged there is nothing to
do; otherwise, also after an interrupted install, the environment is made anew.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAMP = "coattn-setup.txt"
# An environment of torch 2.15 with CUDA takes 7.1 GB. Its packages have about 3.5 GB (3 % of the files, compressed as
# wheels are), which pip keeps beside it until they are installed.
NEEDED_GB = 11
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*(\[[^\]]*\])?\s*(?P<specifiers>[^;]*)(?P<marker>;.*)?")


def requirements(pyproject: dict[str, Any]) -> list[str]:
    """Return the requirements of the package, its extras and the dependency groups, without its own."""
    project = pyproject["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *pyproject["dependency-groups"].values(),
    ]
    texts = [text for texts in lists for text in texts if isinstance(text, str)]
    return [text for text in texts if REQUIREMENT.fullmatch(text)["name"] != project["name"]]


def lowest(requirement: str) -> str:
    """Turn `name[extra]>=1.2,<3; marker` into the constraint `name==1.2; marker`.

    Raises:
        ValueError: it has no lower bound.
    """
    match = REQUIREMENT.fullmatch(requirement)
    bound = re.search(r"(>=|~=|==)\s*([\w.]+)", match["specifiers"])
    if bound is None:
        raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound; write it as 'name>=version'")
    return f"{match['name']}=={bound[2]}{match['marker'] or ''}"


def fingerprint(pyproject: dict[str, Any]) -> str:
    """Return what an environment depends on: the requirements, the Python version, and the folder it points to."""
    wanted = json.dumps([pyproject["build-system"], pyproject["project"], pyproject["dependency-groups"]])
    return f"python {sys.version}\nfolder {ROOT}\nrequirements {hashlib.sha256(wanted.encode()).hexdigest()}\n"


def make(environment: Path, constraints: list[str]) -> None:
    """Make the environment from scratch and install into it, with uv if available, else with pip."""
    python = str(environment / "bin" / "python")
    uv = shutil.which("uv")
    if environment.exists():
        (environment / "pyvenv.cfg").unlink(missing_ok=True)  # first, so that a half-deleted one is recognized as ours
        shutil.rmtree(environment)
    free = shutil.disk_usage(environment.parent).free / 1e9
    if free < NEEDED_GB:
        print(
            f"tools/setup: {environment} needs {NEEDED_GB} GB, {free:.1f} GB are free: free some space", file=sys.stderr
        )
        sys.exit(2)
    print(
        f"tools/setup: installing with {'uv' if uv else 'pip'} into {environment}: minutes, and {NEEDED_GB} GB",
        flush=True,
    )
    environment.mkdir()
    (environment / STAMP).write_text("incomplete\n")
    if uv:
        run(uv, "venv", "--quiet", "--allow-existing", "--python", sys._base_executable, str(environment))
        install = [uv, "pip", "install", "--python", python]
    else:
        run(sys._base_executable, "-m", "venv", str(environment))
        install = [python, "-m", "pip", "install", "--disable-pip-version-check"]
        run(*install, "--quiet", "pip>=25.1")  # the first that knows --group
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        run(*install, "--editable", ".[all]", "--group", "dev", "--constraint", file.name)
    # A torch and a torchvision of different builds install without error and fail at import.
    run(python, "-c", "import torch, torchvision")


def run(*command: str) -> None:
    """Run a command; if it fails, exit with a message that names it."""
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except subprocess.CalledProcessError:
        sys.exit(f"tools/setup: failed, see above: {' '.join(command)}\ntools/setup: the next run starts afresh")
    except KeyboardInterrupt:
        sys.exit("\ntools/setup: interrupted; the next run starts afresh")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/setup", description="Make .venv, unless it exists and is up to date.")
    parser.add_argument("--lowest", action="store_true", help="make .venv-lowest, with the oldest allowed versions")
    arguments = parser.parse_args()

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    environment = ROOT / (".venv-lowest" if arguments.lowest else ".venv")
    constraints = [lowest(text) for text in requirements(pyproject)] if arguments.lowest else []
    wanted = fingerprint(pyproject)
    stamp = environment / STAMP
    with open(ROOT / "pyproject.toml") as lock:  # a second run waits here and then finds the work done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (environment / "pyvenv.cfg").exists() and not stamp.exists():
            sys.exit(f"tools/setup: {environment} was not made by this tool: move it away or delete it, then run again")
        if stamp.exists() and stamp.read_text() == wanted and os.access(environment / "bin" / "python", os.X_OK):
            return
        make(environment, constraints)
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()
