"""The doubts about an answer, as results keep them."""

from __future__ import annotations

from typing import NamedTuple


class Doubt(NamedTuple):
    """Whether to believe an answer.

    Attributes:
        withheld: the model says that it does not know.
        reasons: a sentence for each reason to doubt the answer, whether or not it is withheld.
        unknown_words: the content words of the question that the model does not know, in order.
    """

    withheld: bool = False
    reasons: tuple[str, ...] = ()
    unknown_words: tuple[str, ...] = ()
