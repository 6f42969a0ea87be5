"""The normal form of an answer, and how much each answer of a vocabulary is worth for a question.

The normal form is that of the official evaluation of VQA (https://github.com/GT-Vision-Lab/VQA, Antol et al. 2015,
arXiv 1505.00468), written anew from its behaviour and equal to it to the last quirk, because published scores contain
those quirks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coattn.text.vocabulary import AnswerVocabulary

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}

# Apostrophe, colon, ampersand, dollar and period are not among them.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_BETWEEN_DIGITS = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32

# The words that get a forgotten apostrophe back. Each is recognised with any one of its apostrophes missing: "couldnt",
# "couldnt've" and "couldn'tve", but not "couldntve".
_CONTRACTED_WORDS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED_WORDS.split()
    for place, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}


@lru_cache(maxsize=1 << 17)
def clean_answer(text: str) -> str:
    r"""Newlines and tabs to spaces, white space stripped at both ends: what the official code does to every answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 17)  # a data set repeats its answers; VQA v2 has about 200 thousand distinct ones
def normalize_answer(text: str) -> str:
    r"""The official normal form of an answer: lower case, without punctuation and articles, numbers as digits.

    "The Two dogs." becomes "2 dogs"; "Dont know" becomes "don't know".

    Quirks of the official code, kept because scores depend on them:

    - Of the marks ``; / [ ] " { } ( ) = + \ _ - > < @ ` , ? !`` each is deleted throughout if it stands beside a space
      anywhere in the text, or if the text holds a comma between digits; else it becomes a space. So "red-blue" gives
      "red blue", "x-y, c - d" gives "xy c d", and "1,000-2" gives "10002".
    - Other marks stay, ``: ' & $`` among them. A period goes unless a digit follows it, whatever stands before it
      ("1.x" gives "1x", ".5" stays); but only the first 32 such periods go.
    - "none" is "0". An answer of nothing but articles and such marks becomes "".
    - "dont" and "theyre" get their apostrophe back, but "im", "ive" and "id've" do not: the official table spells them
      with a capital I and is asked in lower case. "somebody'd" loses its apostrophe.
    - Digits, white space and lower case are Unicode's (Python 3; the Python 2 original knew ASCII digits only).
    """
    text = clean_answer(text)
    joins = _COMMA_BETWEEN_DIGITS.search(text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        deleted = joins or f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if deleted else " ")
    stripped = _PERIOD_BEFORE_NO_DIGIT.sub("", stripped, count=_MAX_PERIODS)
    words = [_NUMBERS.get(word, word) for word in stripped.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_key(text: str) -> str:
    """What two answers must share to count as the same: the official normal form, or the text where that is empty.

    Of blood group "A" and of "?" the official form leaves nothing; here they remain "a" and "?", so that they can be
    learnt, predicted and told apart.
    """
    return normalize_answer(text) or clean_answer(text).lower()


def soft_scores(
    answers: Sequence[str], vocabulary: AnswerVocabulary, *, as_typed: bool = False
) -> tuple[list[int], list[float]]:
    """How much each vocabulary entry is worth, given the human answers: the entries worth anything, and their scores.

    The score is the official accuracy of predicting the entry: for each human answer left out, min(1, matches among the
    others / 3), averaged. Of ten answers 1, 2, 3 or at least 4 equal ones give 0.3, 0.6, 0.9 and 1, which is the table
    that the published models count with.

    Two differences from the official code, which would make bad targets: a lone answer scores 1 (officially 0, for
    nothing is left to match), and answers are compared by `answer_key` always (officially as typed if all are the same,
    so that ten times "Yes" gives "yes" 0).

    Args:
        answers: at least one human answer, as typed.
        vocabulary: the answers to score.
        as_typed: compare answers with the entries as they were typed: "two" is then no "2". So scored DCN and
            hengyuan-hu's bottom-up top-down attention their training questions (of VQA v2's answers, 1 % differ).

    Returns:
        Numbers of the entries in the order of their first answer, and their scores in (0, 1]. Both are empty if no
        answer is in the vocabulary.

    Raises:
        ValueError: there are no answers.
    """
    counts, total = _count_known(answers, vocabulary, as_typed=as_typed), len(answers)
    if total == 1:
        return list(counts), [1.0] * len(counts)
    return list(counts), [
        (count * min(3, count - 1) + (total - count) * min(3, count)) / (3 * total) for count in counts.values()
    ]


def answer_shares(answers: Sequence[str], vocabulary: AnswerVocabulary) -> tuple[list[int], list[float]]:
    """The part of the human answers that each vocabulary entry has: how openvqa trains MFB and MFH.

    Answers outside the vocabulary count in the whole, so the shares of a question may sum to less than 1.

    Args, Returns, Raises: as `soft_scores`, with shares for scores.
    """
    counts = _count_known(answers, vocabulary)
    return list(counts), [count / len(answers) for count in counts.values()]


def _count_known(answers: Sequence[str], vocabulary: AnswerVocabulary, *, as_typed: bool = False) -> dict[int, int]:
    if not answers:
        raise ValueError("soft scores need at least one human answer, got none")
    counts = Counter(answers if as_typed else map(answer_key, answers))
    return {vocabulary.index[key]: count for key, count in counts.items() if key in vocabulary.index}
