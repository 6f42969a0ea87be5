"""Answers that are written word by word: the form in which they are written, and the vocabulary of their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from coattn.text.answers import answer_key
from coattn.text.vocabulary import AnswerVocabulary, checked_texts, most_common

# The ids that `coattn.nn.decoder` knows (a test compares them), and that of the comma between the things of a list.
PAD, BOS, EOS, COMMA = range(4)
_NUM_SPECIAL = 4


def written_form(text: str) -> str:
    """An answer as a model is to write it: its normal form (`answer_key`), but a list keeps its commas.

    "Chair, the garbage_bin" becomes "chair, garbage bin". Without its commas the result is what `answer_key` gives,
    so that it scores like the answer itself; where that could not be, nothing but the normal form is left.
    """
    key = answer_key(text)
    parts = [answer_key(part) for part in text.split(",")]
    listed = ", ".join(part for part in parts if part)
    return listed if listed.replace(",", "").split() == key.split() else key


class AnswerWords:
    """The words that answers are written in: ids 0 to 3 are padding, beginning, end and comma, then come the words.

    Args:
        words: distinct, not empty, without white space and commas.

    Attributes:
        words: as given, as a tuple; the word of id i is `words[i - 4]`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = checked_texts(words, "a vocabulary of answer words")
        for place, word in enumerate(self.words):
            if word.replace(",", " ").split() != [word]:
                raise ValueError(f"a vocabulary of answer words holds {word!r} at place {place}, which is not one word")
        self._ids = {word: number for number, word in enumerate(self.words, start=_NUM_SPECIAL)} | {",": COMMA}

    def __len__(self) -> int:
        """Number of ids, the specials included."""
        return len(self.words) + _NUM_SPECIAL

    def encode(self, answer: str) -> list[int] | None:
        """The ids of an answer's words and its end; None if it has a word that is not known, or none at all."""
        ids = [self._ids.get(word) for word in _split(written_form(answer))]
        known = [number for number in ids if number is not None]
        return [*known, EOS] if known and len(known) == len(ids) else None

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words up to the end."""
        words = []
        for number in ids:
            if number == EOS:
                break
            words.append("," if number == COMMA else self.words[number - _NUM_SPECIAL])
        return words

    def texts(self, answers: Iterable[Sequence[int]]) -> list[str]:
        """The text of each answer, given as ids."""
        return [" ".join(self.decode(ids)).replace(" ,", ",") for ids in answers]

    def as_typed(self, text: str) -> str:
        """The answer as it is: it is written word by word; see `AnswerVocabulary.as_typed`."""
        return text

    @classmethod
    def build(cls, answers: Iterable[str], *, min_count: int = 1) -> Self:
        """Collect the words that occur at least `min_count` times, by falling count, equal counts by alphabet.

        Give it the answers of the training split only.

        Raises:
            ValueError: no word is left.
        """
        counts = Counter(word for answer in answers for word in _split(written_form(answer)) if word != ",")
        words = most_common(counts, min_count)
        if not words:
            raise ValueError(f"no word occurs {min_count} times in the answers ({len(counts)} distinct words)")
        return cls(words)

    def to_json(self) -> dict[str, list[str]]:
        """The words, as JSON holds them; an object, where an `AnswerVocabulary` is a list."""
        return {"words": list(self.words)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        if unknown := sorted(set(value) - {"words"}):
            raise ValueError(f"a vocabulary of answer words has the unknown {', '.join(unknown)}; it holds words alone")
        return cls(value["words"])


def answers_from_json(value: Any) -> AnswerVocabulary | AnswerWords:
    """The answers to choose from, or the words to write with: whichever `to_json` gave.

    Raises:
        ValueError: it is neither.
    """
    written = isinstance(value, dict) and "words" in value
    return AnswerWords.from_json(value) if written else AnswerVocabulary.from_json(value)


def _split(written: str) -> list[str]:
    return written.replace(",", " , ").split()
