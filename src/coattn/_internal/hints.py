"""Hints for messages: the one "did you mean", and the messages of jsonargparse in plain words."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable

_NEAR = 0.65  # The least similarity of a name that is suggested; one changed letter of four is 0.75.
_COMPARED = 1000  # Names that are compared letter by letter, 12 microseconds each.
_MOST = 20  # Longer lists of names are cut: a message stays readable with a store of a million images.
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`, whatever their case; None if none is similar.

    Of more than 1000 known names those are compared that share the most pairs of letters with `name`.
    """
    by_folded = {other.casefold(): other for other in reversed(list(known))}
    folded, candidates = name.casefold(), list(by_folded)
    if len(candidates) > _COMPARED:
        pairs = {folded[start : start + 2] for start in range(max(1, len(folded) - 1))}
        candidates = heapq.nlargest(_COMPARED, candidates, key=lambda other: sum(map(other.__contains__, pairs)))
    near = difflib.get_close_matches(folded, candidates, n=1, cutoff=_NEAR)
    return by_folded[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or the known names if none is near, to be added to a message about an unknown one.

    Args:
        name: The unknown name, as the user typed it. Its case does not matter.
        known: The names that would have been accepted, in the order in which a list shows them.

    Returns:
        "; did you mean 'x'?", or "; known are a, b, c", or an empty text if nothing is known.
    """
    names = list(known)
    if near := nearest(name, names):
        return f"; did you mean {near!r}?"
    return f"; known are {listed(names)}" if names else ""


def listed(names: Iterable[str]) -> str:
    """The names for a message, at most 20 of them; "nothing" if there are none."""
    names = list(names)
    rest = f", ... ({len(names)} in all)" if len(names) > _MOST else ""
    return f"{', '.join(names[:_MOST])}{rest}" or "nothing"


def wrong_setting(message: str) -> str:
    """The message of jsonargparse about a value of a wrong type, as one plain sentence; any other message unchanged."""
    text = " ".join(message.split())
    setting, value = re.search(r'Parser key "([\w.]+)"', text), re.search(r"(?:Got|Given) value: (.*)", text)
    expected = re.findall(r"Expected an? (<class '[\w.]+'>|typing\.Literal\[.*?\])", text)
    if setting is None or value is None or not expected:
        return re.sub(r'Parser key "([\w.]+)":', r"\1:", text)
    kinds = []
    for kind in dict.fromkeys(expected):
        choices = re.findall(r"'([^']+)'", kind) if kind.startswith("typing") else []
        name = kind.split("'")[1].rpartition(".")[2]
        kinds.append(f"one of {', '.join(choices)}" if choices else _TYPES.get(name, name))
    return f"{setting[1]} must be {' or '.join(kinds)}, got {value[1]!r}"
