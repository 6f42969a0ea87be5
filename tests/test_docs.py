"""README.md and docs/: links lead somewhere, commands parse, Python runs."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models, nn
from coattn.cli import COMMANDS, main
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.directory import load, save_model
from coattn.serialization.registry import BRICKS
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.md"), *ROOT.glob("findings/*.md")]
)
TRAINING = {"fit", "validate", "test", "predict"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: {link}"


def command_lines(page: Path) -> Iterator[list[str]]:
    """The `coattn` command lines of the page's code blocks, split into words. Rows of charts are none."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4,}(?:\$ )?(coattn [a-z].+|torchrun .+)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "coattn" in words and "█" not in line:
            yield words[words.index("coattn") + 1 :]


LINES = [(name(page), words) for page in PAGES for words in command_lines(page)]


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command that parses its arguments and then ends without running."""
    if words[0] in TRAINING:
        words = [*words, "--print_config"]
    else:
        monkeypatch.setattr(importlib.import_module(f"coattn.cli.{words[0]}"), "run", lambda arguments: 0)
    try:
        return main(words)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{page}-{words[0]}" for page, words in LINES])
def test_command_lines_parse(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    status = parse(words, monkeypatch)
    assert status == 0, f"{page}: coattn {shlex.join(words)}\n{capsys.readouterr().err}"


def test_a_wrong_command_line_does_not_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(["ask", "model", "--no-such-option"], monkeypatch) == 2


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path) -> None:
    named = re.findall(r"`coattn ([a-z][\w-]*)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(COMMANDS)


def test_settings_in_the_text_exist(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")  # --help would import it without torch's compiler, for the tests that follow too
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    known = set(re.findall(r"--((?:data|model|trainer)\.[\w.]+)", capsys.readouterr().out))
    for page in PAGES:
        named = set(re.findall(r"`(?:--)?((?:data|model|trainer)\.(?!onnx)[a-z_.]+)", page.read_text(encoding="utf-8")))
        assert named <= known, name(page)


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the README's Python reads: an untrained small model and an image."""
    words = Vocabulary(["what", "color", "is", "the", "shape", "no", "circle", "present"])
    answers = AnswerVocabulary(["green", "no"])
    sizes = {"num_words": len(words), "region_dim": 56, "num_answers": len(answers), "dim": 16, "embedding_dim": 8}
    save_model(
        tmp_path / "runs/easy_vqa/model",
        models.modular(**sizes, standardized=False),
        answer_vocabulary=answers,
        question_vocabulary=words,
        metric="exact_match",
        activation="softmax",
        temperature=1.0,
        max_tokens=8,
        extractor=Descriptor().record,
    )
    image = tmp_path / "data/easy_vqa/images/test/7.png"
    image.parent.mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(image)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_runs(quickstart: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert (quickstart / "where.png").exists()


def test_the_layer_of_the_models_page_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/models.md").read_text(encoding="utf-8"), re.M | re.S)
    for known, added in ((models.LAYERS, "cross"), (BRICKS, "CrossAttention")):
        monkeypatch.setitem(known, added, nn.ParallelCoAttention)  # to be removed at the end
    exec(compile(block, "my_layers.py", "exec"), {"__name__": "my_layers"})
    sizes = {"num_words": 4, "region_dim": 5, "num_answers": 3, "dim": 8, "num_heads": 2}
    model = models.stack(layers=["cross", "parallel"], **sizes).eval()
    assert type(model.coattention.layers[0]).__name__ == "CrossAttention"
    words, answers = Vocabulary(["what", "color"]), AnswerVocabulary(["red", "green", "blue"])
    record = {"metric": "exact_match", "activation": "softmax", "extractor": Descriptor().record}
    save_model(tmp_path / "model", model, answer_vocabulary=answers, question_vocabulary=words, **record)
    loaded = load(tmp_path / "model")
    masks = {"question_mask": torch.tensor([[True, True]]), "region_mask": torch.tensor([[True, True, False]])}
    question, regions = torch.tensor([[2, 3]]), torch.rand(1, 3, 5)
    expected, found = model(question, regions, **masks), loaded(question, regions, **masks, need_weights=True)
    torch.testing.assert_close(found.logits, expected.logits)
    shapes = {name: tuple(weights.shape) for name, weights in found.maps.items()}
    assert shapes["layers.0.question_to_regions"] == (1, 2, 2, 3)
    assert shapes["layers.0.regions_to_question"] == (1, 2, 3, 2)
    # Padding changes nothing.
    regions[0, 2] = 7.0
    torch.testing.assert_close(loaded(question, regions, **masks).logits, expected.logits)


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("```python" in line for line in lines[:40])


def test_architecture_names_files_and_all_folders() -> None:
    named = re.findall(r"`([a-z_]+/|[a-z_/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    package = ROOT / "src" / "coattn"
    missing = [path for path in named if not (package / path).exists() and not (package / "training" / path).exists()]
    assert not [path for path in missing if not (ROOT / path).exists()]
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")} - {"_internal/"}
    assert folders <= set(named)
