"""Medical questions: closed ones by accuracy, open ones by exact match and by the words that are right."""

from __future__ import annotations

from collections import Counter

import numpy as np

from coattn.datasets.records import Record
from coattn.metrics.judgement import Judgement, Submission
from coattn.metrics.vqa import exact_match
from coattn.text.answers import is_yes_no, plain_key
from coattn.text.tokenizer import separate_characters

_AROUND = ".,;:!?()[]{}\"'"


def token_f1(prediction: str, answer: str) -> float:
    """The harmonic mean of precision and recall of an answer's words.

    A word counts as often as both answers have it (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1). Words are
    those of `answer_words`: unlike in that paper signs and articles count, because "HER2+" is not "HER2-".

    Returns:
        2 P R / (P + R) in [0, 1]; 0 without a common word.
    """
    common, predicted, expected = _count_words(prediction, answer)
    return 2 * common / (predicted + expected) if common else 0.0


def answer_words(text: str) -> list[str]:
    """The words of an answer: at spaces, without the punctuation around them; each character of Chinese is a word."""
    chunks = separate_characters(plain_key(text)).split()
    return [word for chunk in chunks if (word := chunk.strip(_AROUND))]


def judge_medical(submission: Submission) -> Judgement:
    """Exact match, closed and open, and token F1 of open answers (VQA-RAD, SLAKE, PathVQA).

    A question is closed if its answer type is "closed" or "yes/no", or its answer is yes or no, as in PathVQA, which
    names no type; else open. Numbers: "closed accuracy" and "open exact match", "open token F1", and "open token
    recall", the share of the answer's words that were predicted, which some papers call the accuracy of open questions.
    """
    closed = np.array([is_closed(record) for record in submission.records])
    pairs = list(zip(submission.answers, (record.answer for record in submission.records), strict=True))
    worth = np.array([exact_match(*pair) for pair in pairs])
    f1 = np.array([token_f1(*pair) for pair in pairs])
    recall = np.array([_token_recall(*pair) for pair in pairs])
    means = {
        "closed accuracy": np.where(closed, worth, np.nan),
        "open exact match": np.where(closed, np.nan, worth),
        "open token F1": np.where(closed, np.nan, f1),
        "open token recall": np.where(closed, np.nan, recall),
    }
    return Judgement(worth, means=means)


def is_closed(record: Record) -> bool:
    """Whether a question is closed: by its answer type, or else because its answer is yes or no."""
    kind = record.answer_type.strip().lower()
    if kind in ("open", "closed"):
        return kind == "closed"
    return kind == "yes/no" or is_yes_no(record.answer)


def _token_recall(prediction: str, answer: str) -> float:
    common, _, expected = _count_words(prediction, answer)
    return common / expected if expected else 0.0


def _count_words(prediction: str, answer: str) -> tuple[int, int, int]:
    """Words that are in both, in the prediction, and in the answer."""
    predicted, expected = (Counter(answer_words(text)) for text in (prediction, answer))
    return (predicted & expected).total(), predicted.total(), expected.total()
