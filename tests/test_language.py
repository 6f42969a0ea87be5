"""The docstrings, comments and messages of the package are in plain American English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "src" / "coattn").rglob("*.py"))
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
# American words that end like British ones, and names of parameters that saved models hold.
ALLOWED = re.compile(
    r"\b(advis|appris|arbitrar|compris|devis|excis|exercis|improvis|otherwis|precis|pr[ao]mis|rais|revis|supervis|"
    r"surpris|unsupervis|nois|standardis)\w*",
    re.IGNORECASE,
)


def texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Line, text and whether it is a docstring, of all docstrings, comments and messages of a file.

    A string is a message if it has a space: others are names and data.
    """
    tree, docstrings = ast.parse(source), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docstrings.add(body[0].value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value, node in docstrings
    for line, text in enumerate(source.splitlines(), 1):
        if comment := re.search(r"(^|\s)# .*", text):
            yield line, comment[0], False


def find_faults(source: str) -> list[str]:
    """The line and the words of everything that is not plain American English."""
    faults = []
    for line, text, is_docstring in texts(source):
        if is_docstring and (match := re.search(r"\AWhat\b|^ +\w+: [Ww]hat\b", text, re.MULTILINE)):
            faults.append(f"{line}: begins with What: {match[0]}")
        prose = re.sub(r"`[^`]*`", "``", text)
        found = [*PHRASES.finditer(prose), *BRITISH.finditer(ALLOWED.sub("", prose))]
        faults += [f"{line}: {match[0]}" for match in found]
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_texts_are_in_plain_american_english(path: Path) -> None:
    assert not find_faults(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        '"""What a model knows."""',
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
        'parser.error("standardised: see `standardise`, which stands for z-scores")',
    ],
)
def test_names_and_data_are_no_faults(source: str) -> None:
    assert not find_faults(source)
