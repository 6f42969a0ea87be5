"""A wheel works by itself: it holds the configurations, and a model can be trained from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("setuptools")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "configs"):
        ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    build = "import setuptools.build_meta as meta; print(meta.build_wheel('dist'))"
    name = subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True).stdout
    return source / "dist" / name.split()[-1]


def test_the_wheel_holds_code_configurations_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "src" / "coattn"
    expected = {path.relative_to(package.parent).as_posix() for path in package.glob("**/*.py")}
    expected |= {
        f"coattn/configs/{path.relative_to(ROOT / 'configs').as_posix()}"
        for pattern in ("**/*.yaml", "**/*.md")
        for path in (ROOT / "configs").glob(pattern)
    }
    assert names >= expected
    others = names - expected
    assert {Path(name).suffix for name in others} <= {".typed", ".html", ".css", ".js", ".json", ".svg", ".png"}
    assert "coattn/py.typed" in others


@pytest.mark.slow
def test_a_model_is_trained_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    zipfile.ZipFile(wheel).extractall(site)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        command = [str(python), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "photos").mkdir()
    rows = ["image,question,answer,split"]
    for number in range(24):
        red = number % 2 == 0
        Image.new("RGB", (32, 32), (200, 9 * number, 30) if red else (30, 9 * number, 200)).save(
            tmp_path / "photos" / f"{number}.png"
        )
        split = ("train", "train", "val", "test")[number // 6]
        rows += [
            f"{number}.png,is it {color}?,{'yes' if (color == 'red') == red else 'no'},{split}"
            for color in ("red", "blue")
        ]
    (tmp_path / "answers.csv").write_text("\n".join(rows))

    assert str(site) in run("-c", "import coattn; print(coattn.__file__)")
    assert "easy_vqa" in run("-m", "coattn", "configs")
    shown = run("-m", "coattn", "train", "answers.csv", "--images", "photos", "--out", "run", "--epochs", "1")
    assert "question only" in shown
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
