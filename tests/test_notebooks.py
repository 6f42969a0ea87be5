from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the dependency group notebooks is not installed")

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"1_ask_and_look": 4, "2_train_and_stack": 4, "3_why_attention": 2}  # at least
PLACES = re.compile(r"(?<![\w.:/~])/(?:home|Users|root|tmp|var|work|usr|opt|mnt|private)/|[A-Z]:\\\\", re.ASCII)
NOISE = re.compile(r"Traceback|Warning|\d+%\||\bit/s\b|\x1b\[|object at 0x")


def notebook(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[Any]:
    return [cell for cell in notebook(name).cells if cell.cell_type == "code"]


def texts(outputs: list[Any]) -> str:
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_every_notebook_is_known() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
class TestStored:
    """The files as they are kept."""

    def test_is_valid_and_small(self, name: str) -> None:
        nbformat.validate(notebook(name))
        assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 1.5e6

    def test_was_executed_from_top_to_bottom(self, name: str) -> None:
        cells = code_cells(name)
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))

    def test_shows_pictures(self, name: str) -> None:
        outputs = [output for cell in code_cells(name) for output in cell.outputs]
        pictures = [
            base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})
        ]
        assert len(pictures) >= PICTURES[name]
        for picture in pictures:
            width, height = struct.unpack(">II", picture[16:24])
            assert picture.startswith(b"\x89PNG")
            assert min(width, height) > 100

    def test_says_nothing_of_the_machine(self, name: str) -> None:
        for cell in code_cells(name):
            assert not cell.metadata
            assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs)
            said = texts(cell.outputs)
            assert not PLACES.search(said), said
            assert not NOISE.search(said), said


def test_the_patterns_find_what_they_should() -> None:
    assert PLACES.search("wrote /home/me/model")
    assert PLACES.search("('/tmp/x',)")
    assert NOISE.search("UserWarning: few workers")
    assert NOISE.search("Epoch 0: 12%|#")
    assert not PLACES.search("runs/easy_vqa/model, images/000.png, yes/no")


def test_failure_keeps_the_file_and_is_told(tmp_path: Path) -> None:
    new = nbformat.v4
    cells = [new.new_code_cell("print('before')"), new.new_code_cell("raise ValueError('the model is not there')")]
    path = tmp_path / "fails.ipynb"
    nbformat.write(new.new_notebook(cells=cells), path)
    before = path.read_bytes()
    run = execute(path)
    assert run.returncode == 1
    assert "fails.ipynb" in run.stderr
    assert "the model is not there" in run.stderr
    assert path.read_bytes() == before


def test_execution_is_stored_without_noise(tmp_path: Path) -> None:
    source = "import sys\nprint('kept')\nprint('noise', file=sys.stderr)"
    path = tmp_path / "works.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    before = path.read_bytes()
    assert execute(path, "--check").returncode == 0
    assert path.read_bytes() == before
    assert execute(path).returncode == 0
    (cell,) = nbformat.read(path, as_version=4).cells
    assert [(output.name, output.text) for output in cell.outputs] == [("stdout", "kept\n")]
    assert cell.execution_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_runs(name: str, tmp_path: Path) -> None:
    if name.startswith("1") and not (ROOT / "runs/easy_vqa/model/config.json").exists():
        pytest.skip("runs/easy_vqa/model is not there; tools/quickstart makes it")
    run = execute(ROOT / "notebooks" / f"{name}.ipynb", "--check")
    assert run.returncode == 0, run.stderr


def execute(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/notebooks.py"), str(path), *options]
    return subprocess.run(command, capture_output=True, text=True)
