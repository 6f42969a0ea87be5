"""The forms in which answers are compared, and how much each answer of a vocabulary is worth for a question.

A data set compares its answers in one of two forms, which its metric decides (`answer_form`):

- "vqa": the normal form of the official evaluation of VQA (https://github.com/GT-Vision-Lab/VQA, Antol et al. 2015,
  arXiv 1505.00468), reimplemented from its behavior with all of its quirks, because published scores contain them. It
  deletes signs and articles: "HER2+" and "HER2-" become one answer.
- "plain": as people typed it; only case, spaces and final stops make no difference. Every other data set uses it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from coattn.text.tokenizer import join_characters, normalize_text

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

# The words whose forgotten apostrophe is restored. Each is recognized with any one of its apostrophes missing:
# "couldnt", "couldnt've" and "couldn'tve", but not "couldntve".
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
    r"""Newlines and tabs as spaces, and no white space at both ends, as the official code cleans every answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 17)  # a data set repeats its answers; VQA v2 has about 200 thousand distinct ones
def normalize_answer(text: str) -> str:
    r"""The official normal form of an answer: lower case, without punctuation and articles, numbers as digits.

    "The Two dogs." becomes "2 dogs"; "Dont know" becomes "don't know".

    Quirks of the official code, kept because scores depend on them:

    - Of the marks ``; / [ ] " { } ( ) = + \ _ - > < @ ` , ? !`` each is deleted throughout if it is beside a space
      anywhere in the text, or if the text has a comma between digits; else it becomes a space. So "red-blue" becomes
      "red blue", "x-y, c - d" becomes "xy c d", and "1,000-2" becomes "10002".
    - Other marks stay, ``: ' & $`` among them. A period is deleted unless a digit follows it, whatever precedes it
      ("1.x" becomes "1x", ".5" stays); but only the first 32 such periods are deleted.
    - "none" is "0". An answer of nothing but articles and such marks becomes "".
    - The apostrophe of "dont" and "theyre" is restored, but not that of "im", "ive" and "id've": the official table
      spells them with a capital I and is looked up in lower case. "somebody'd" loses its apostrophe.
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


@lru_cache(maxsize=1 << 17)
def answer_key(text: str) -> str:
    """The key of an answer in the form "vqa": its official normal form, or its text where that is empty.

    The official form of the blood group "A" and of "?" is empty; here they remain "a" and "?", so that they can be
    learned, predicted and told apart. Typographic punctuation is replaced by plain punctuation first.
    """
    text = normalize_text(text)
    return normalize_answer(text) or clean_answer(text).lower()


LIST_COMMA = re.compile(r" ?(?:,(?!\d)|(?<!\d),) ?")  # any comma but that of "1,000"


@lru_cache(maxsize=1 << 17)
def plain_key(text: str) -> str:
    """The key of an answer in the form "plain": lower case, single spaces, no final stops, plain punctuation.

    "Left lung." becomes "left lung", "HER2+" becomes "her2+", and "肝 脏。" becomes "肝脏": spaces mean nothing beside
    characters of scripts that are written without them, nor beside the commas of a list. An underscore is a space, as
    in DAQUAR's "garbage_bin". An answer of nothing but stops keeps them.
    """
    words = " ".join(normalize_text(text).lower().replace("_", " ").split())
    words = LIST_COMMA.sub(", ", join_characters(words)).strip()
    return words.rstrip(". ") or words


FORMS: dict[str, Callable[[str], str]] = {"vqa": answer_key, "plain": plain_key}
_VQA_METRICS = frozenset({"vqa_accuracy", "multiple_choice", "textvqa", "vizwiz"})


def answer_form(metric: str) -> str:
    """The form, a name in FORMS, in which a data set that this metric judges compares its answers."""
    return "vqa" if metric in _VQA_METRICS else "plain"


_YES_NO = frozenset(["yes", "no", "是", "不是", "否", "有", "没有", "はい", "いいえ", "ใช่", "ไม่ใช่", "มี", "ไม่มี"])
_NUMBER = re.compile(r"[+-]?(?:\d+(?:,\d{3})*(?:\.\d*)?|\.\d+)")


def is_yes_no(answer: str) -> bool:
    """Whether an answer is yes or no; in Chinese, Japanese and Thai too."""
    return plain_key(answer) in _YES_NO


def is_number(answer: str) -> bool:
    """Whether an answer is a number in digits, or a number word from "zero" to "ten"."""
    key = plain_key(answer)
    return _NUMBER.fullmatch(key) is not None or (key in _NUMBERS and key != "none")


def soft_scores(
    answers: Sequence[str], vocabulary: AnswerVocabulary, *, as_typed: bool = False
) -> tuple[list[int], list[float]]:
    """How much each vocabulary entry is worth, given the human answers: the entries worth anything, and their scores.

    The score is the official accuracy of predicting the entry: for each human answer left out, min(1, matches among the
    others / 3), averaged. Of ten answers 1, 2, 3 or at least 4 equal ones score 0.3, 0.6, 0.9 and 1, which is the table
    that the published models use.

    Two differences from the official code, which would make bad targets: a lone answer scores 1 (officially 0, because
    nothing is left to match), and answers are always compared in the vocabulary's form (officially as typed if all are
    the same, so that ten times "Yes" scores 0 for "yes").

    Args:
        answers: at least one human answer, as typed.
        vocabulary: the answers to score.
        as_typed: compare answers with the entries as they were typed: "two" is then not "2". DCN and hengyuan-hu's
            bottom-up top-down attention scored their training questions so (of VQA v2's answers, 1 % differ).

    Returns:
        Numbers of the entries in the order of their first answer, and their scores in (0, 1]. Both are empty if no
        answer is in the vocabulary.

    Raises:
        ValueError: there are no answers.
    """
    counts, total = _count_known(answers, vocabulary, as_typed=as_typed), len(answers)
    return list(counts), [consensus(count, total) for count in counts.values()]


@lru_cache(maxsize=1 << 10)
def consensus(matches: int, total: int) -> float:
    """The worth of an answer that `matches` of `total` people typed, each left out in turn; see `soft_scores`."""
    if total == 1:
        return float(matches)
    return (matches * min(3, matches - 1) + (total - matches) * min(3, matches)) / (3 * total)


def answer_shares(answers: Sequence[str], vocabulary: AnswerVocabulary) -> tuple[list[int], list[float]]:
    """The share of the human answers that each vocabulary entry has: how openvqa trains MFB and MFH.

    Answers outside the vocabulary count in the total, so the shares of a question may sum to less than 1.

    Args, Returns, Raises: as `soft_scores`, with shares for scores.
    """
    counts = _count_known(answers, vocabulary)
    return list(counts), [count / len(answers) for count in counts.values()]


def _count_known(answers: Sequence[str], vocabulary: AnswerVocabulary, *, as_typed: bool = False) -> dict[int, int]:
    if not answers:
        raise ValueError("soft scores need at least one human answer, got none")
    counts: dict[int, int] = {}
    for text, count in Counter(answers).items():
        number = vocabulary.index.get(text if as_typed else vocabulary.key(text))
        if number is not None:
            counts[number] = counts.get(number, 0) + count
    return counts
