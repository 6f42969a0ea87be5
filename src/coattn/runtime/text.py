"""The tokenizer of an exported model that reads questions with a pretrained text encoder."""

from __future__ import annotations

from pathlib import Path

from coattn._internal.files import require
from coattn.text.tokenizer import normalize_text, tokenize


class QuestionTokenizer:
    """Ids of pieces of words, cut to the length of training; the twin of `coattn.text.pretrained_tokenizer`.

    Args:
        path: the file that `coattn export` wrote, in the format of the package `tokenizers`.

    Raises:
        ValueError: the file is damaged.
        ModuleNotFoundError: `tokenizers` is not installed.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        try:
            self._tokenizer = require("tokenizers", "runtime-text").Tokenizer.from_buffer(content)
        except ValueError as error:
            raise ValueError(f"{path}: not a readable tokenizer ({error}); export again") from None

    def encode(self, question: str) -> list[int]:
        """The ids of a question, special tokens included; none for a question without a word."""
        return self._tokenizer.encode(normalize_text(question)).ids if tokenize(question) else []

    def is_cut(self, question: str) -> bool:
        """Whether a question is longer than those of training."""
        return bool(self._tokenizer.encode(normalize_text(question)).overflowing)
