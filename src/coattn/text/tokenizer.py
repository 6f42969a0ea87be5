"""The tokenisers of questions that published VQA models were trained with."""

from __future__ import annotations

from collections.abc import Callable

_DELETED = ".,'!?\"()*#:;"
_TABLE = str.maketrans(dict.fromkeys(_DELETED, "") | dict.fromkeys("-/", " "))


def tokenize(question: str) -> list[str]:
    """Split a question into words, in lower case, at white space, ``-`` and ``/``; ``.,'!?"()*#:;`` are deleted.

    "What's on the man's T-shirt?" becomes whats, on, the, mans, t, shirt. A question of nothing but punctuation has no
    word. The rule is that of openvqa's models (Yu et al. 2019, arXiv 1906.10770) and, before them, of Pythia.
    """
    return question.lower().translate(_TABLE).split()


def tokenize_possessives(question: str) -> list[str]:
    """Split at white space, in lower case; ``,`` and ``?`` are deleted, and ``'s`` is a word of its own.

    "What's on the man's T-shirt?" becomes what, 's, on, the, man, 's, t-shirt. The rule of hengyuan-hu's bottom-up
    top-down model.
    """
    return question.lower().replace(",", "").replace("?", "").replace("'s", " 's").split()


# By the name that a vocabulary keeps.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"plain": tokenize, "possessives": tokenize_possessives}
