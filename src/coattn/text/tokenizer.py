"""Normalization of typed text, and the tokenizers of questions that published VQA models were trained with.

Every tokenizer normalizes the text first (`normalize_text`), so that typographic punctuation changes no answer. Text in
ASCII is never changed by that, so that tokens equal those of the published code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Typographic characters, and the plain spelling of each character of the key.
_PLAIN_SPELLINGS = {
    "‘’‚‛′‵´‹›": "'",
    "“”„‟″‶«»「」『』《》〈〉": '"',
    "‐‑‒–—―−": "-",
    "。｡︒।": ".",
    "、､،": ",",
    "؟⸮՞": "?",
    "‽": "?!",
    "؛": ";",
    "⁄∕": "/",
    "【〔": "[",
    "】〕": "]",
    "・･": " ",
    "µ": "μ",  # the micro sign, as the Greek letter
    "¿¡": "",  # the mark at the end of the sentence says the same
    "ﬀ": "ff",
    "ﬁ": "fi",
    "ﬂ": "fl",
    "ﬃ": "ffi",
    "ﬄ": "ffl",
    "ﬅﬆ": "st",
}
# Soft hyphen, zero width, direction, variation selectors, tags.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0001-\U000e01ef"
)
_DROPPED = re.compile(f"[{_INVISIBLE}]+")
# Full-width letters, digits and signs, and compatibility forms of punctuation and spaces, such as "⁇", "…" and "﹖".
_COMPATIBLE = {
    number: plain
    for first, last in ((0x00A0, 0x00A0), (0x2000, 0x206F), (0x3000, 0x303F), (0xFE10, 0xFE6F), (0xFF01, 0xFF5E))
    for number in range(first, last + 1)
    if (plain := unicodedata.normalize("NFKC", chr(number))).isascii()
}
_TYPOGRAPHY = str.maketrans(
    _COMPATIBLE | {ord(mark): plain for marks, plain in _PLAIN_SPELLINGS.items() for mark in marks}
)

# Thai, Lao, Tibetan, Burmese, Khmer, Japanese, and Chinese: scripts that are written without spaces between words.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_MARKS = (
    "".join(chr(number) for number in range(0x0E00, 0x1800) if unicodedata.category(chr(number)).startswith("M"))
    + "\u3099\u309a\uff9e\uff9f"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}][{_MARKS}]*")
_SPACE_BETWEEN_UNSPACED = re.compile(f"(?<=[{_UNSPACED}]) +| +(?=[{_UNSPACED}])")

_DELETED = ".,'!?\"()*#:;"
_DELETIONS = str.maketrans(dict.fromkeys(_DELETED) | dict.fromkeys("-/", " "))  # None is deleted faster than ""


def normalize_text(text: str) -> str:
    """The text in Unicode's form NFC, with typographic punctuation in ASCII and without invisible characters.

    Quotation marks, apostrophes, dashes, ellipses, full-width forms, no-break spaces and ligatures get their plain
    spelling; zero-width characters and inverted marks are dropped. ASCII text is returned unchanged, and so is a text
    of nothing but dropped characters.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _DROPPED.sub("", text)).translate(_TYPOGRAPHY) or text


def has_unspaced_script(text: str) -> bool:
    """Whether the text has characters of a script that is written without spaces, such as Chinese or Thai."""
    return not text.isascii() and _UNSPACED_CHARACTER.search(text) is not None


def separate_characters(text: str) -> str:
    """The text with a space around each character, marks included, of the scripts that are written without spaces."""
    return text if text.isascii() else _UNSPACED_CHARACTER.sub(lambda found: f" {found[0]} ", text)


def join_characters(text: str) -> str:
    """The text without the spaces beside characters of the scripts that are written without spaces."""
    return text if text.isascii() else _SPACE_BETWEEN_UNSPACED.sub("", text)


def tokenize(question: str) -> list[str]:
    """Split a question into lower-case words; scripts that are written without spaces are split into characters.

    The question is split at white space, ``-`` and ``/``; the marks ``.,'!?"()*#:;`` are deleted. "What's on the man's
    T-shirt?" becomes whats, on, the, mans, t, shirt, and "CT图像？" becomes ct, 图, 像. A question of nothing but
    punctuation has no word. In ASCII the rule is that of openvqa's models (Yu et al. 2019, arXiv 1906.10770) and of
    Pythia before them.
    """
    return separate_characters(_without_marks(question)).split()


def tokenize_at_spaces(question: str) -> list[str]:
    """Split a question like `tokenize`, but keep text of scripts without spaces together."""
    return _without_marks(question).split()


def _without_marks(question: str) -> str:
    return normalize_text(question).lower().translate(_DELETIONS)


def tokenize_possessives(question: str) -> list[str]:
    """Split at white space, in lower case; ``,`` and ``?`` are deleted, and ``'s`` is a separate word.

    "What's on the man's T-shirt?" becomes what, 's, on, the, man, 's, t-shirt. This is the rule of hengyuan-hu's
    bottom-up top-down model.
    """
    return normalize_text(question).lower().replace(",", "").replace("?", "").replace("'s", " 's").split()


# The rules by which the Penn Treebank's convention splits, in this order; each puts spaces around its matches.
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
    """Split by the Penn Treebank's convention, in lower case: punctuation and the endings of contractions.

    "What's on the man's T-shirt? Don't know" becomes what, 's, on, the, man, 's, t-shirt, ?, do, n't, know. DCN takes
    this rule from nltk; the result equals that of its `NLTKWordTokenizer` on all but one of 60,000 questions of VQA v2.
    A full stop that ends a sentence within a question is not split off: nltk needs a trained model for that.
    """
    text = re.sub(r"(^|[\s(\[{<])\"", r"\1 `` ", f" {normalize_text(question).lower()} ").replace('"', " '' ")
    for rule in _TREEBANK:
        text = rule.sub(lambda found: f" {found[0]} ", text)
    return _JOINED.sub(lambda found: f"{found[0]} ", text).split()


# Tokenizers by the name that a vocabulary keeps.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "plain": tokenize_at_spaces,
    "possessives": tokenize_possessives,
    "treebank": tokenize_treebank,
    "characters": tokenize,
}
