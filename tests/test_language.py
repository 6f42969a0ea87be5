"""Docstrings and comments are in plain American English, and so are the messages of the package."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.md"), *ROOT.glob("configs/**/*.yaml")]
)
SOURCES = sorted(path for folder in ("src/coattn", "tests", "tools") for path in (ROOT / folder).rglob("*.py"))
# A docstring begins with a verb or with a noun that says what the thing is, and an argument likewise.
RIDDLES = re.compile(r"\A(What|So|By|Of|As|Nothing|Behind|Both)\b|^ +\w+: [Ww]hat\b", re.MULTILINE)
PHRASES = re.compile(r"\b(so many|of (its|their) own|whoever|stands?(?! (in )?for\b))\b", re.IGNORECASE)
BRITISH = re.compile(
    r"""\b(
        \w*(colour|behaviour|favour|neighbour|honour|analys(e[ds]?|ing)\b|catalogue|artefact|fulfil\b)\w*
        | \w*(al|ar|er|im|in|ogn|an|ok|or|ibr|ys|it|ut)is(e[sdr]?|ers|ing|ations?)
        | (un|mis)?(label|model|cancel|travel|signal)l(ed|ing|er)
        | centres?d? | greys? | greyscale | licences? | programmes? | learnt | metres? | practise[sd]?
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
# American words that end like British ones.
ALLOWED = re.compile(
    r"\b(advis|appris|arbitrar|compris|devis|excis|exercis|improvis|otherwis|precis|pr[ao]mis|rais|revis|supervis|"
    r"surpris|unsupervis|nois)\w*",
    re.IGNORECASE,
)


def texts(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, text and kind of all docstrings, comments and messages of a file.

    A string is a message if it has a space: others are names and data.
    """
    tree, docstrings = ast.parse(source), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docstrings.add(body[0].value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value, "docstring" if node in docstrings else "message"
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, "comment"


def find_faults(source: str, *, messages: bool = True) -> list[str]:
    """The line and the words of everything that is not plain American English."""
    faults = []
    for line, text, kind in texts(source):
        if kind == "message" and not messages:
            continue
        if kind == "docstring" and (match := RIDDLES.search(text)):
            faults.append(f"{line}: begins with {match[0].strip()}")
        faults += [f"{line}: {words}" for words in faults_of_prose(text)]
    return faults


def faults_of_prose(text: str) -> list[str]:
    """The words of a text, except in backticks, that are not plain American English."""
    prose = re.sub(r"`[^`]*`", "``", text)
    return [match[0] for match in (*PHRASES.finditer(prose), *BRITISH.finditer(ALLOWED.sub("", prose)))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_texts_are_in_plain_american_english(path: Path) -> None:
    # The messages of tests and tools hold data and examples of faults.
    assert not find_faults(path.read_text(encoding="utf-8"), messages=path.is_relative_to(ROOT / "src"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_and_configurations_are_in_plain_american_english(path: Path) -> None:
    assert not faults_of_prose(re.sub(r'"[^"\n]*"', '""', path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.name)
def test_text_of_notebooks_is_in_plain_american_english(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert text
    assert not faults_of_prose(text)


@pytest.mark.parametrize(
    "source",
    [
        '"""What a model knows."""',
        '"""By how much a score grows."""',
        '"""Of a summary; a plain number is itself."""',
        '"""Read.\n\n    Args:\n        name: what is read.\n    """',
        "def f():\n    '''Read so many rows.'''",
        "# each process has a device of its own",
        "raise ValueError(f'{path}: the colour of {name} is missing')",
        "x = 1  # the optimiser is normalised and labelled in grey",
        '"""The one who stands before it."""',
    ],
)
def test_faults_are_found(source: str) -> None:
    assert find_faults(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""The map `colour` of a normalized, labeled model; otherwise promised, raised and noised."""',
        "COLOUR = 'colour'",
        'parser.error("colors: see `colour`, which stands for a name")',
    ],
)
def test_names_and_data_are_no_faults(source: str) -> None:
    assert not find_faults(source)
