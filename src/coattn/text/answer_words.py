"""Answers that are written word by word: their written form, and the vocabulary of their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from coattn.text.answers import FORMS, LIST_COMMA
from coattn.text.tokenizer import join_characters, separate_characters
from coattn.text.vocabulary import AnswerVocabulary, checked_form, checked_texts, most_common

# The ids that `coattn.nn.decoder` knows (a test compares them), and the id of the comma between the items of a list.
PAD, BOS, EOS, COMMA = range(4)
_NUM_SPECIAL = 4


def written_form(text: str, form: str = "vqa") -> str:
    """The text of an answer for a model that writes: its key in the given form, except that a list keeps its commas.

    In the form "vqa" "Chair, the garbage_bin" becomes "chair, garbage bin". Without its commas the result equals the
    answer's key, so that it scores like the answer itself; where that is impossible, the result is the key.
    """
    key_of = FORMS[form]
    key = key_of(text)
    if form == "plain":
        return key
    listed = ", ".join(part for part in map(key_of, text.split(",")) if part)
    return listed if listed.replace(",", "").split() == key.split() else key


class AnswerWords:
    """The words that answers are written with: ids 0 to 3 are padding, beginning, end and comma, then the words follow.

    In the form "plain", text of scripts that are written without spaces is written character by character.

    Args:
        words: distinct, not empty, each one word.
        form: how answers are compared, a name in `coattn.text.answers.FORMS`.

    Attributes:
        words: as given, as a tuple; the word of id i is `words[i - 4]`.
        form: as given.
    """

    def __init__(self, words: Sequence[str], *, form: str = "vqa") -> None:
        self.words, self.form = checked_texts(words, "a vocabulary of answer words"), checked_form(form, "answer words")
        for place, word in enumerate(self.words):
            if self._split(word) != [word] or word == ",":
                raise ValueError(f"a vocabulary of answer words holds {word!r} at place {place}, which is not one word")
        self._ids = {word: number for number, word in enumerate(self.words, start=_NUM_SPECIAL)} | {",": COMMA}

    def __len__(self) -> int:
        """Number of ids, the specials included."""
        return len(self.words) + _NUM_SPECIAL

    def key(self, text: str) -> str:
        """The key of an answer; two answers with the same key count as the same."""
        return FORMS[self.form](text)

    def encode(self, answer: str) -> list[int] | None:
        """The ids of an answer's words and its end; None if it has an unknown word, or no word at all."""
        ids = [self._ids.get(word) for word in self._split(written_form(answer, self.form))]
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
        texts = [" ".join(self.decode(ids)).replace(" ,", ",") for ids in answers]
        return list(map(join_characters, texts)) if self.form == "plain" else texts

    def as_typed(self, text: str) -> str:
        """The answer unchanged, since it is written word by word; see `AnswerVocabulary.as_typed`."""
        return text

    @classmethod
    def build(cls, answers: Iterable[str], *, form: str = "vqa", min_count: int = 1) -> Self:
        """Collect the words that occur at least `min_count` times, by falling count, equal counts by alphabet.

        Args:
            answers: those of the training split only.
            form: how answers are compared, see `coattn.text.answers.answer_form`.
            min_count: how often a word must occur.

        Raises:
            ValueError: no word is left, or the form is unknown.
        """
        split = cls([], form=form)._split
        counts = Counter(word for answer in answers for word in split(written_form(answer, form)) if word != ",")
        words = most_common(counts, min_count)
        if not words:
            raise ValueError(f"no word occurs {min_count} times in the answers ({len(counts)} distinct words)")
        return cls(words, form=form)

    def to_json(self) -> dict[str, Any]:
        """The words as JSON values: an object, where an `AnswerVocabulary` may be a list."""
        form = {} if self.form == "vqa" else {"form": self.form}
        return {"words": list(self.words)} | form

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The vocabulary that `to_json` described.

        Raises:
            ValueError: the value does not describe a vocabulary.
        """
        if unknown := sorted(set(value) - {"words", "form"}):
            raise ValueError(
                f"a vocabulary of answer words has the unknown {', '.join(unknown)}; it holds words and their form"
            )
        return cls(value["words"], form=value.get("form", "vqa"))

    def _split(self, written: str) -> list[str]:
        """The words of a written answer, with its commas as words."""
        text = LIST_COMMA.sub(" , ", written)
        return (separate_characters(text) if self.form == "plain" else text).split()


def answers_from_json(value: Any) -> AnswerVocabulary | AnswerWords:
    """The `AnswerVocabulary` or the `AnswerWords` that `to_json` described.

    Raises:
        ValueError: the value describes neither.
    """
    written = isinstance(value, dict) and "words" in value
    return AnswerWords.from_json(value) if written else AnswerVocabulary.from_json(value)
