"""Questions as a model reads them: token ids or embeddings, and the words that the tokens belong to.

Letters: T tokens, E width of token embeddings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.tokenizer import tokenize
from coattn.text.vocabulary import UNK, Vocabulary

if TYPE_CHECKING:
    from coattn.text.encoders import TextEncoder


class Word(NamedTuple):
    """A word of a question.

    Attributes:
        text: as the model reads it.
        places: its tokens; several where a text encoder splits a word into pieces.
        known: whether the model's vocabulary has it.
        special: a token that the text encoder adds, such as [CLS].
    """

    text: str
    places: tuple[int, ...]
    known: bool = True
    special: bool = False


def read_questions(
    questions: Sequence[str], reader: Vocabulary | PretrainedTokenizer | TextEncoder, max_tokens: int | None
) -> list[Tensor]:
    """Each question as token ids (T,) int64 or token embeddings (T, E).

    Longer questions than `max_tokens`, or than the encoder's limit, are cut with a warning.

    Raises:
        ValueError: a question is not text, or has no word.
    """
    for question in questions:
        if not isinstance(question, str):
            raise ValueError(f"a question is text, got {question!r}")
        if not tokenize(question):
            raise ValueError(f"the question {question!r} has no word in it")
    if not isinstance(reader, Vocabulary | PretrainedTokenizer):
        rows = reader.encode(questions)
        for question, row in zip(questions, rows, strict=True):
            if len(row) == reader.max_tokens:
                _warn(f"question cut to {len(row)} tokens, or just as long: {question!r}")
        return rows
    rows = []
    for question in questions:
        ids = reader.encode(question)
        if max_tokens is not None and len(ids) > max_tokens:
            unit = "words" if isinstance(reader, Vocabulary) else "tokens"
            _warn(f"question of {len(ids)} {unit} cut to {max_tokens}, as in training: {question!r}")
            ids = reader.encode(question, max_tokens=max_tokens)
        rows.append(torch.tensor(ids))
    return rows


def question_words(
    question: str, reader: Vocabulary | PretrainedTokenizer | TextEncoder, max_tokens: int | None
) -> tuple[tuple[str, ...], tuple[Word, ...]]:
    """The T tokens that a model reads, and the words that they belong to."""
    if isinstance(reader, Vocabulary):
        tokens = tuple(reader.tokens(question, max_tokens=max_tokens))
        ids = reader.encode(question, max_tokens=max_tokens)
        pairs = enumerate(zip(tokens, ids, strict=True))
        return tokens, tuple(Word(token, (place,), known=number != UNK) for place, (token, number) in pairs)
    tokenizer = reader if isinstance(reader, PretrainedTokenizer) else reader.tokenizer
    limit = max_tokens if isinstance(reader, PretrainedTokenizer) else reader.max_tokens
    tokens = tuple(tokenizer.tokens(question, max_tokens=limit))
    words: list[Word] = []
    before: int | None = None
    for place, number in enumerate(tokenizer.word_numbers(question, max_tokens=limit)):
        if number is not None and number == before:  # a further piece of the same word
            text = words[-1].text + tokens[place].removeprefix("##")
            words[-1] = words[-1]._replace(text=text, places=(*words[-1].places, place))
        else:
            words.append(Word(tokens[place], (place,), special=number is None))
        before = number
    return tokens, tuple(words)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
