"""The words and answers of published models, from the dictionaries of their projects or rebuilt from question files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coattn._internal.files import read_json
from coattn.text.tokenizer import TOKENIZERS
from coattn.text.vocabulary import AnswerVocabulary

_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth")


def read_answers(path: str | os.PathLike[str], *, num_answers: int) -> AnswerVocabulary:
    """Read the answers, in the order of the logits, from an `answer_dict.json`.

    The file holds `[answer -> number, ...]`, one dict in either direction, or a list of answers. The empty answer of
    openvqa's list is kept.

    Raises:
        ValueError: the file is not such a dictionary, or does not have `num_answers` answers.
        OSError: the file cannot be read.
    """
    answers = _numbered(_read(path), f"{path}: a dictionary of answers")
    if len(answers) != num_answers:
        raise ValueError(
            f"{path}: {len(answers)} answers, but the checkpoint scores {num_answers}; give the dictionary it was "
            "trained with"
        )
    try:
        return AnswerVocabulary(answers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_words(path: str | os.PathLike[str], *, specials: Sequence[str], num_words: int) -> list[str]:
    """Read the words, in the order of their ids, from a `token_dict.json`: word -> id, `[word -> id, ...]`, or a list.

    Args:
        path: the file.
        specials: the tokens of the first ids.
        num_words: number of rows of the checkpoint's embedding.

    Raises:
        ValueError: the file is not such a dictionary, has other specials, or does not have `num_words` words.
        OSError: the file cannot be read.
    """
    words = _numbered(_read(path), f"{path}: a dictionary of words")
    check_count(str(path), len(words), num_words, specials)
    if words[: len(specials)] != list(specials):
        raise ValueError(
            f"{path}: the first words are {', '.join(words[: len(specials)])}, but this project's are "
            f"{', '.join(specials)}; give the dictionary that the checkpoint was trained with"
        )
    return words


def words_of_questions(
    paths: Sequence[str | os.PathLike[str]], *, specials: Sequence[str], tokenizer: str
) -> list[str]:
    """The specials, then all words of question files in the order of their first appearance.

    The ids depend on the order of the files: give them in the order in which the project reads them.

    Raises:
        ValueError: a file does not hold questions.
        OSError: a file cannot be read.
    """
    words = dict.fromkeys(specials)
    for path in paths:
        for question in _questions(path):
            words |= dict.fromkeys(TOKENIZERS[tokenizer](question))
    return list(words)


def check_count(where: str, found: int, wanted: int, specials: Sequence[str]) -> None:
    """Raise ValueError, with the likely reason, unless the checkpoint's embedding has `found` words.

    Only the number can be checked: a wrong order of the words is not noticed.
    """
    if found == wanted:
        return
    if specials and abs(found - wanted) == 1:
        reason = "a difference of one is the token CLS, which only openvqa has; is it the other project's file?"
    elif found < wanted:
        reason = "words are missing: the projects use the questions of train, val and test"
    else:
        reason = "the checkpoint was trained with fewer questions, or with another data set"
    raise ValueError(f"{where}: {found} words, but the checkpoint's embedding has {wanted}; {reason}")


def _read(path: str | os.PathLike[str]) -> Any:
    if Path(path).suffix.lower() in _PICKLES:
        raise ValueError(
            f"{path}: is a pickle, which is not read because it can run code; write its content as JSON with the "
            "project's code, or give question files instead if this is a dictionary of words"
        )
    return read_json(path)


def _numbered(value: Any, where: str) -> list[str]:
    """The texts in the order of their numbers.

    They come from a list, a dict text -> number, a dict number -> text, or a list that begins with such a dict.
    """
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, Mapping):
        numbers = sorted(map(str, range(len(value))))
        if sorted(value) == numbers and all(isinstance(text, str) for text in value.values()):
            return [value[str(number)] for number in range(len(value))]
        if sorted(map(str, value.values())) != numbers:
            raise ValueError(
                f"{where} must have each number from 0 to {len(value) - 1} exactly once; this one does not"
            )
        value = sorted(value, key=lambda text: int(value[text]))
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where} is an object from each to its number, or a list, got {str(value)[:40]!r}")
    return value


def _questions(path: str | os.PathLike[str]) -> Iterable[str]:
    """The question texts of a file: a list as of VQA v2 and CLEVR, or an object as of GQA."""
    found = read_json(path)
    listed = found.get("questions", list(found.values())) if isinstance(found, dict) else found
    if not isinstance(listed, list) or not listed:
        raise ValueError(f'{path}: not a file of questions (an object with a list "questions")')
    for number, entry in enumerate(listed):
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            raise ValueError(f'{path}: question number {number} (counted from 0) has no text under "question"')
        yield entry["question"]
