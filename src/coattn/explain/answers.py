"""Answers with their confidence, and what speaks against believing them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UNSURE = "I don't know"


class Answer(NamedTuple):
    """An answer as people type it, and the calibrated probability, in [0, 1], that it is right."""

    text: str
    confidence: float


class Answers(list[Answer]):
    """The best answers to one question, best first: a list, with the reasons to doubt it.

    Attributes:
        withheld: the model does not know; the list is then empty.
        reasons: a sentence for each doubt, whether or not the answers are withheld.
        unknown_words: the content words of the question that the model does not know, in order.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        *,
        withheld: bool = False,
        reasons: Iterable[str] = (),
        unknown_words: Iterable[str] = (),
    ) -> None:
        super().__init__(() if withheld else answers)
        self.withheld, self.reasons, self.unknown_words = withheld, tuple(reasons), tuple(unknown_words)

    def __repr__(self) -> str:
        shown = UNSURE if self.withheld else super().__repr__()
        return f"{shown} ({' '.join(self.reasons)})" if self.reasons else shown
