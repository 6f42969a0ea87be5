"""The tokenisers of questions that published VQA models were trained with."""

from __future__ import annotations

import re
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


# What the Penn Treebank's convention splits off, in this order; each rule gets spaces around what it finds.
_TREEBANK = tuple(
    re.compile(rule)
    for rule in (
        r"\.\.\.|--|[;@#$%&*?!()\[\]{}<>]",
        r"[:,](?=\D)",
        r"(?<!\.)\.(?=[])}>'\s]*$)",
        r"(?<= )'(?=\w)(?!(?:s|m|d|t|n|ll|re|ve)\b)",
        r"(?<=[^' ])(?:'(?:s|m|d|ll|re|ve)?|n't)(?= )",
    )
)
_JOINED = re.compile(r"\b(?:can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\s))")


def tokenize_treebank(question: str) -> list[str]:
    """Split after the Penn Treebank's convention, in lower case: punctuation and the endings of contractions.

    "What's on the man's T-shirt? Don't know" becomes what, 's, on, the, man, 's, t-shirt, ?, do, n't, know. The rule of
    DCN, which takes it from nltk: it equals its `NLTKWordTokenizer` on all but one of 60,000 questions of VQA v2. That
    a full stop can also end a sentence within a question, nltk knows from a model that is not used here.
    """
    text = re.sub(r"(^|[\s(\[{<])\"", r"\1 `` ", f" {question.lower()} ").replace('"', " '' ")
    for rule in _TREEBANK:
        text = rule.sub(lambda found: f" {found[0]} ", text)
    return _JOINED.sub(lambda found: f"{found[0]} ", text).split()


# By the name that a vocabulary keeps.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "plain": tokenize,
    "possessives": tokenize_possessives,
    "treebank": tokenize_treebank,
}
