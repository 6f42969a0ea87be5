"""Vocabularies: the words of questions, and the answers that a model can choose from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Self

from coattn.text.answers import FORMS, clean_answer
from coattn.text.tokenizer import TOKENIZERS, has_unspaced_script, normalize_text

PAD = 0
UNK = 1
_NUM_SPECIAL = 2
_BLOCK = 10_000  # questions that are held as words at a time


class Vocabulary:
    """The words of questions. Id 0 is padding, id 1 any unknown word (`<unk>`); the words have the ids from 2.

    Args:
        words: distinct, not empty, without the two specials.
        tokenizer: how questions are split into words, a name in `coattn.text.tokenizer.TOKENIZERS`.
        longest: the number of words of the longest training question; None if it is not known.

    Attributes:
        words: as given, as a tuple; the word of id i is `words[i - 2]`.
        longest: as given.
    """

    def __init__(self, words: Sequence[str], *, tokenizer: str = "plain", longest: int | None = None) -> None:
        self.words, self.tokenizer = checked_texts(words, "a question vocabulary"), tokenizer
        if longest is not None and (type(longest) is not int or longest < 1):
            raise ValueError(f"a question vocabulary's longest must be a positive number, got {longest!r:.40}")
        self.longest = longest
        if not isinstance(tokenizer, str) or tokenizer not in TOKENIZERS:
            known = ", ".join(TOKENIZERS)
            raise ValueError(f"a question vocabulary's tokenizer must be one of {known}, got {tokenizer!r:.40}")
        if "" in self.words:
            raise ValueError(f"a question vocabulary has an empty word, at place {self.words.index('')}")
        self._ids = {word: number for number, word in enumerate(self.words, start=_NUM_SPECIAL)}
        # Older vocabularies hold words with typographic punctuation: they are found by their normalized spelling too.
        for word in self.words:
            if not word.isascii() and len(tokens := self.tokens(word)) == 1:
                self._ids.setdefault(tokens[0], self._ids[word])

    def __len__(self) -> int:
        """Number of ids, the specials included: the rows an embedding needs."""
        return len(self.words) + _NUM_SPECIAL

    def __contains__(self, word: str) -> bool:
        """Whether a token of `tokens` is known."""
        return word in self._ids

    def is_too_long(self, question: str) -> bool:
        """Whether a question has more words than any training question; False where their number is not known."""
        return self.longest is not None and len(self.tokens(question)) > self.longest

    def trained_on(self, questions: Iterable[str]) -> Vocabulary:
        """The same words for a model that has been trained on these questions, too."""
        if self.longest is None:
            return self
        longest = max((len(self.tokens(question)) for question in questions), default=0)
        return Vocabulary(self.words, tokenizer=self.tokenizer, longest=max(self.longest, longest))

    def tokens(self, question: str, *, max_tokens: int | None = None) -> list[str]:
        """The words of a question, known or not, cut at the end to `max_tokens`."""
        return TOKENIZERS[self.tokenizer](question)[:max_tokens]

    def encode(self, question: str, *, max_tokens: int | None = None) -> list[int]:
        """The ids of a question's words, cut at the end to `max_tokens`; empty if it has no word."""
        return [self._ids.get(word, UNK) for word in self.tokens(question, max_tokens=max_tokens)]

    def encode_all(self, questions: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """The ids of each question; see `encode`."""
        split, number = TOKENIZERS[self.tokenizer], self._ids.get
        return [[number(word, UNK) for word in split(question)[:max_tokens]] for question in questions]

    @classmethod
    def build(cls, questions: Iterable[str], *, min_count: int = 1, tokenizer: str = "plain") -> Self:
        """Collect the words that occur at least `min_count` times, by falling count, equal counts by alphabet.

        Args:
            questions: those of the training split only.
            min_count: how often a word must occur.
            tokenizer: a name in `coattn.text.tokenizer.TOKENIZERS`. "plain" becomes "characters" if a question is
                written in a script without spaces.

        Raises:
            ValueError: no word is left, or the tokenizer is unknown.
        """
        questions = list(questions)
        if tokenizer == "plain" and any(map(has_unspaced_script, questions)):
            tokenizer = "characters"
        split = cls([], tokenizer=tokenizer).tokens
        counts: Counter[str] = Counter()
        longest = 0
        for start in range(0, len(questions), _BLOCK):
            rows = [split(question) for question in questions[start : start + _BLOCK]]
            counts.update(chain.from_iterable(rows))
            longest = max(longest, *map(len, rows))
        words = most_common(counts, min_count)
        if not words:
            raise ValueError(f"no word occurs {min_count} times in the questions ({len(counts)} distinct words)")
        return cls(words, tokenizer=tokenizer, longest=longest)

    def to_json(self) -> dict[str, Any]:
        """The vocabulary as JSON values."""
        return {"tokenizer": self.tokenizer, "longest": self.longest, "words": list(self.words)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The vocabulary that `to_json` described; earlier ones are a list of words, or lack the longest question.

        Raises:
            ValueError: it is not a list of distinct words, nor that with the name of a tokenizer.
        """
        if isinstance(value, dict) and {"tokenizer", "words"} <= value.keys() <= {"tokenizer", "words", "longest"}:
            return cls(value["words"], tokenizer=value["tokenizer"], longest=value.get("longest"))
        return cls(value)


# Words that change no answer when a model does not know them.
_FUNCTION_WORDS = """
    a an the this that these those is are was were be been being am do does did doing has have had having can could
    will would shall should may might must of in on at by for from to with into onto about and or but so than then as
    it its he him his she her they them their there here we us our you your i me my please just also very any some
    what which who whom whose where when why how whats theres
"""
_IS_FUNCTION_WORD = frozenset(_FUNCTION_WORDS.split()).__contains__


def unknown_words(question: str, vocabulary: object) -> list[str]:
    """The content words of a question that a vocabulary does not know, as typed, each once.

    Function words ("please", "the") and punctuation are left out. A text encoder's tokenizer has a piece for every
    word, so for anything but a `Vocabulary` the list is empty.
    """
    if not isinstance(vocabulary, Vocabulary) or all(token in vocabulary for token in vocabulary.tokens(question)):
        return []
    unknown: dict[str, None] = {}
    for chunk in normalize_text(question).split():
        tokens = vocabulary.tokens(chunk)
        for token in tokens:
            if token in vocabulary or _IS_FUNCTION_WORD(token) or not any(map(str.isalnum, token)):
                continue
            start = chunk.lower().find(token)
            if start >= 0:
                typed = chunk[start : start + len(token)]
            else:  # the tokenizer deleted marks within the word
                typed = chunk.strip(".,!?\"'()*#:;") if len(tokens) == 1 else token
            unknown[typed] = None
    return list(unknown)


def knows_no_word(question: str, vocabulary: object) -> bool:
    """Whether a vocabulary knows no word of a question; False for anything but a `Vocabulary`."""
    return isinstance(vocabulary, Vocabulary) and not any(
        token in vocabulary for token in vocabulary.tokens(question) if any(map(str.isalnum, token))
    )


class AnswerVocabulary:
    """The answers a model can choose from: answer i is output i of its head.

    Args:
        answers: distinct keys of the vocabulary's form, at least one. The empty answer is accepted because published
            lists (VQA v2's usual 3129) hold it; `build` never makes it.
        typed: the most frequent spelling of the answers that people mostly type otherwise: "t shirt" -> "t-shirt".
        form: how answers are compared, a name in `coattn.text.answers.FORMS`.

    Attributes:
        answers: as given, as a tuple.
        typed: as given, as a dict.
        form: as given.
        index: the number of each answer.
    """

    def __init__(self, answers: Sequence[str], *, typed: Mapping[str, str] | None = None, form: str = "vqa") -> None:
        self.answers = checked_texts(answers, "an answer vocabulary")
        if not self.answers:
            raise ValueError("an answer vocabulary is empty; it needs at least one answer")
        self.form = checked_form(form, "an answer vocabulary")
        self.index: Mapping[str, int] = {answer: number for number, answer in enumerate(self.answers)}
        self.typed = dict(typed or {})
        for answer, text in self.typed.items():
            if answer not in self.index or not isinstance(text, str):
                raise ValueError(f"an answer vocabulary says that {answer!r} is typed {text!r}, but does not hold it")

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.answers)

    def key(self, text: str) -> str:
        """The key under which `index` has this answer, if it has it."""
        return FORMS[self.form](text)

    def texts(self, numbers: Iterable[int]) -> list[str]:
        """The answer of each number, as a key."""
        return [self.answers[number] for number in numbers]

    def as_typed(self, text: str) -> str:
        """The most frequent spelling of an answer, for people and for metrics that compare letter by letter."""
        return self.typed.get(text, text)

    @classmethod
    def build(
        cls, answer_lists: Iterable[Sequence[str]], *, form: str = "vqa", size: int | None = None, min_count: int = 1
    ) -> Self:
        """Collect the answers given most often, by falling count, equal counts by alphabet; empty ones are left out.

        Args:
            answer_lists: the human answers of each question, as typed, of the training split only. For the usual list
                of VQA v2 give one answer per question, `[record.answer]`, and `min_count=9`.
            form: how answers are compared, see `coattn.text.answers.answer_form`.
            size: the largest number of answers; None keeps all.
            min_count: how often an answer must have been given.

        Raises:
            ValueError: no answer is left, or the form is unknown.
        """
        key_of = FORMS[checked_form(form, "an answer vocabulary")]
        given = Counter(clean_answer(answer) for answers in answer_lists for answer in answers)
        counts: Counter[str] = Counter()
        typed: dict[str, str] = {}
        for text in most_common(given, 1):
            key = key_of(text)
            counts[key] += given[text]
            typed.setdefault(key, text)
        counts.pop("", None)
        answers = most_common(counts, min_count)[:size]
        if not answers:
            raise ValueError(
                f"no answer is left for the vocabulary: {len(counts)} distinct ones, min_count {min_count}, size {size}"
            )
        return cls(answers, typed={answer: typed[answer] for answer in answers if typed[answer] != answer}, form=form)

    def to_json(self) -> list[str] | dict[str, Any]:
        """The answers as JSON values: a list, or an object where spellings are kept or the form is not "vqa"."""
        answers = list(self.answers)
        if self.form != "vqa":
            return {"answers": answers, "form": self.form, "typed": self.typed}
        return {"answers": answers, "typed": self.typed} if self.typed else answers

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The vocabulary that `to_json` described.

        Raises:
            ValueError: it is not a list of distinct texts, nor that with spellings and form.
        """
        keys = set(value) if isinstance(value, dict) and isinstance(value.get("typed"), dict) else set()
        if keys - {"form"} == {"answers", "typed"}:
            return cls(value["answers"], typed=value["typed"], form=value.get("form", "vqa"))
        return cls(value)


def checked_form(form: Any, name: str) -> str:
    """The form of answers, if it is one of `coattn.text.answers.FORMS`; it may come from a file."""
    if not isinstance(form, str) or form not in FORMS:
        raise ValueError(f"the form of {name} must be one of {', '.join(FORMS)}, got {form!r:.40}")
    return form


def most_common(counts: Mapping[str, int], min_count: int) -> list[str]:
    """The texts that occur at least `min_count` times, by falling count, equal counts by alphabet."""
    kept = [text for text, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda text: (-counts[text], text))


def checked_texts(texts: Any, name: str) -> tuple[str, ...]:
    """The texts as a tuple, if they are distinct texts; they may come from a file."""
    if not isinstance(texts, (list, tuple)):
        raise ValueError(f"{name} is a list of texts, got {type(texts).__name__} {str(texts)[:40]!r}")
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} is a list of texts, but place {place} holds {text!r}")
        if first.setdefault(text, place) != place:
            raise ValueError(f"{name} holds {text!r} twice, at places {first[text]} and {place}")
    return tuple(texts)
