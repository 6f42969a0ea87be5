"""Reasons to doubt an answer, and when to withhold it."""

from __future__ import annotations

from collections.abc import Sequence


def unknown_reason(words: Sequence[str]) -> str:
    """The doubt about a question with words that the model does not know."""
    if len(words) == 1:
        return f"The model does not know the word “{words[0]}”."
    return f"The model does not know the words {', '.join(f'“{word}”' for word in words)}."
