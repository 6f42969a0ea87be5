from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import coattn

SOURCE = Path(coattn.__file__).parent

# Each layer imports only from the layers before it, and from its own folder.
LAYERS = (
    "_internal",
    "nn",
    "text",
    "models",
    "features",
    "datasets",
    "metrics",
    "serialization",
    "weights",
    "explain",
    "visualization",
    "runtime",
    "predictor",
    "training",
    "export",
    "apps",
    "cli",
    "__main__",
)
HEAVY = ("lightning", "transformers", "h5py", "matplotlib", "torchvision", "PIL", "safetensors", "tqdm")


def folder_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_folders(path: Path) -> Iterator[tuple[int, str]]:
    """Line and folder of each import of this package in a file, those inside functions included."""
    package = ("coattn", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names] if base == "coattn" else [base]
        else:
            continue
        for module in modules:
            name, _, rest = module.partition(".")
            if name == "coattn" and rest and not rest.startswith("__"):
                yield node.lineno, rest.partition(".")[0]


def sources() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def test_every_folder_has_its_place() -> None:
    assert {folder_of(path) for path in sources()} <= set(LAYERS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    folder = folder_of(path)
    allowed = {folder, *LAYERS[: LAYERS.index(folder)]} - ({"_internal"} if folder == "nn" else set())
    wrong = [f"line {line}: {name}" for line, name in imported_folders(path) if name not in allowed]
    assert not wrong


@pytest.mark.parametrize("path", [p for p in sources() if folder_of(p) == "nn"], ids=lambda path: path.name)
def test_nn_needs_torch_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        roots = {name.partition(".")[0] for name in names}
        assert roots <= {"torch", *sys.stdlib_module_names}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import coattn", HEAVY),
        ("import coattn.models; coattn.VQAModel", HEAVY),
        ("import coattn; coattn.load", ("lightning", "transformers", "matplotlib", "torchvision", "h5py")),
        ("import coattn; coattn.Predictor", ("lightning", "transformers", "matplotlib", "torchvision", "h5py")),
        ("import coattn.cli", ("torch", *HEAVY)),
        ("import coattn.runtime", ("torch", *(name for name in HEAVY if name != "PIL"))),
    ],
)
def test_imports_no_more_than_it_needs(statement: str, forbidden: tuple[str, ...]) -> None:
    # None in sys.modules makes an import fail: what is not needed is not even tried.
    names = ", ".join(f"{name!r}: None" for name in forbidden)
    run(f"import sys; sys.modules |= {{{names}}}; {statement}")


@pytest.mark.parametrize("name", ["weights.from_openvqa", "models.ban", "nn.VQAModel"])
def test_packages_are_there_after_one_import(name: str) -> None:
    package = name.partition(".")[0]
    run(f"import coattn, sys; assert 'coattn.{package}' not in sys.modules; coattn.{name}")


def test_every_public_name_is_there() -> None:
    assert [name for name in coattn.__all__ if not hasattr(coattn, name)] == []
    assert set(coattn.__all__) <= set(dir(coattn))
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        coattn.Predicter  # noqa: B018


def test_what_needs_torch_names_the_extra() -> None:
    message = "this needs the package torch: pip install 'coattn[model]'"
    code = "import sys; sys.modules['torch'] = None; import coattn\ntry: coattn.load\nexcept ImportError as e: print(e)"
    assert run(code).strip() == message
    code = (
        "import sys; sys.modules['torch'] = None; from coattn.cli import main; sys.exit(main(['ask', 'm', 'i', 'q']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (2, f"coattn: error: {message}")


def test_onnxruntime_reports_nothing(tmp_path: Path) -> None:
    """Its telemetry would leave the id of a session in the temporary folder."""
    pytest.importorskip("onnxruntime", reason="the extra runtime is not installed")
    silenced = ("ORT_DISABLE_TELEMETRY", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in silenced}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import coattn, onnxruntime"], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
