"""The tokeniser of questions that most published VQA models were trained with."""

from __future__ import annotations

_DELETED = ".,'!?\"()*#:;"
_TABLE = str.maketrans(dict.fromkeys(_DELETED, "") | dict.fromkeys("-/", " "))


def tokenize(question: str) -> list[str]:
    """Split a question into words, in lower case, at white space, ``-`` and ``/``; ``.,'!?"()*#:;`` are deleted.

    "What's on the man's T-shirt?" becomes whats, on, the, mans, t, shirt. A question of nothing but punctuation has no
    word. The rule is that of openvqa's models (Yu et al. 2019, arXiv 1906.10770) and, before them, of Pythia.
    """
    return question.lower().translate(_TABLE).split()
