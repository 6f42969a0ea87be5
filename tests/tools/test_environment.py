"""tools/environment.py and the scripts around it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("requirement", "constraint"),
    [
        ("torch>=2.11", "torch==2.11"),
        ("lightning >= 2.6.6, < 3", "lightning==2.6.6"),
        ("jsonargparse[signatures]>=4.41", "jsonargparse==4.41"),
        ("ruff<0.18,>=0.17.6", "ruff==0.17.6"),
        ("tomli>=2.0; python_version < '3.11'", "tomli==2.0; python_version < '3.11'"),
    ],
)
def test_lowest_keeps_the_name_the_bound_and_the_marker(
    environment: ModuleType, requirement: str, constraint: str
) -> None:
    assert environment.lowest(requirement) == constraint


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch!=2.12"])
def test_a_requirement_without_lower_bound_is_refused(environment: ModuleType, requirement: str) -> None:
    with pytest.raises(ValueError, match="has no lower bound"):
        environment.lowest(requirement)


def test_every_requirement_of_the_project_has_one_lower_bound(environment: ModuleType, pyproject: dict) -> None:
    constraints = [environment.lowest(text) for text in environment.requirements(pyproject)]
    names = [constraint.split("==")[0] for constraint in constraints]
    assert {"torch", "torchvision", "lightning", "transformers", "pytest", "ruff"} <= set(names)
    assert "coattn" not in names
    assert len(names) == len(set(names)), "a package bounded twice would give pip two constraints"


def test_the_fingerprint_follows_the_requirements_and_nothing_else(environment: ModuleType, pyproject: dict) -> None:
    before = environment.fingerprint(pyproject)
    pyproject["tool"]["ruff"]["line-length"] = 1
    assert environment.fingerprint(pyproject) == before
    pyproject["dependency-groups"]["test"].append("pytest-benchmark>=5.1")
    assert environment.fingerprint(pyproject) != before


@pytest.mark.parametrize("script", ["tools/setup", "tools/test", "tools/quickstart", "tools/experiments", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", ["tools/setup", "tools/test", "tools/quickstart"])
def test_help_says_what_the_script_does_and_makes_nothing(script: str) -> None:
    result = subprocess.run([str(ROOT / script), "--help"], capture_output=True, text=True, check=True)
    assert script in result.stdout


def test_setup_without_a_suitable_python_says_so() -> None:
    command = [str(ROOT / "tools" / "setup")]
    result = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "PYTHON": "no-such-python"}, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "none of these is Python 3.11 or newer: no-such-python" in result.stderr


def test_setup_stops_before_it_installs_on_a_disk_without_space(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=2_500_000_000))
    with pytest.raises(SystemExit) as stopped:
        environment.make(tmp_path / "environment", [])
    assert stopped.value.code == 2
    assert re.fullmatch(
        r"tools/setup: \S+/environment needs \d+ GB, 2\.5 GB are free: free some space\n", capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
