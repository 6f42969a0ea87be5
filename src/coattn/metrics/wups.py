"""WUPS: the similarity of answers that are sets of words (Malinowski & Fritz 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from coattn._internal.files import require
from coattn.metrics.judgement import Judgement, Submission, as_annotated

Similarity = Callable[[str, str], float]


def wups(prediction: str, answer: str, threshold: float, similarity: Similarity) -> float:
    """The similarity of two sets of words, which are separated by commas.

    The WUPS score of Malinowski & Fritz 2014, arXiv 1410.0210: with A the prediction's words and T the answer's,

        min(product over a in A of max over t in T of mu(a, t), product over t in T of max over a in A of mu(a, t))

    where mu is the Wu-Palmer similarity, a tenth of it below the threshold. The similarity of equal words is 1, even if
    WordNet lacks them. Deliberate difference: "light blue" and "light_blue" (as in DAQUAR) are one word.

    Args:
        prediction: the predicted answer, for example "chair, table".
        answer: the answer.
        threshold: 0.9 or 0.0 in all publications.
        similarity: of two different words, in [0, 1]; usually `wordnet_similarity()`.

    Returns:
        The score, in [0, 1].
    """

    def alike(first: str, second: str) -> float:
        if first == second:
            return 1.0
        value = similarity(first, second)
        return value if value >= threshold else 0.1 * value

    return _fuzzy_match(_items(prediction), _items(answer), alike)


def judge_wups(submission: Submission) -> Judgement:
    """WUPS at 0.9, at 0.0, and accuracy of the set of words; needs WordNet (DAQUAR, COCO-QA).

    Raises:
        ModuleNotFoundError: nltk is not installed.
        ValueError: WordNet's files are missing.
    """
    similarity = wordnet_similarity()
    answers, notes = as_annotated(submission)
    pairs = zip(answers, (record.answer for record in submission.records), strict=True)
    at = cache(lambda prediction, answer, threshold: wups(prediction, answer, threshold, similarity))
    values = [(at(*pair, 0.9), at(*pair, 0.0), float(_same(*pair))) for pair in pairs]
    strict, loose, same = np.array(values).T
    return Judgement(strict, means={"WUPS 0.9": strict, "WUPS 0.0": loose, "accuracy": same}, notes=notes)


def wordnet_similarity() -> Similarity:
    """The Wu-Palmer similarity of the most similar noun senses of two words in WordNet; 0 for other words.

    As in the authors' script. It is not symmetric for two pairs of words ("curtain" and "shower curtain").

    Raises:
        ModuleNotFoundError: nltk is not installed.
        ValueError: WordNet's files are missing.
    """
    wordnet = require("nltk.corpus", "wups").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise ValueError(
            "WUPS needs WordNet, which is not there: python -m nltk.downloader wordnet, or let NLTK_DATA name the "
            "folder that holds corpora/wordnet"
        ) from None

    @cache
    def senses(word: str) -> Sequence[Any]:
        return wordnet.synsets(word, pos="n")

    @cache
    def similarity(first: str, second: str) -> float:
        pairs = ((one, other) for one in senses(first) for other in senses(second))
        return max((one.wup_similarity(other) or 0.0 for one, other in pairs), default=0.0)

    return similarity


def _items(text: str) -> list[str]:
    return [item.strip().replace(" ", "_") for item in text.split(",")]


def _same(prediction: str, answer: str) -> bool:
    return {*_items(prediction)} == {*_items(answer)}


def _fuzzy_match(first: Sequence[str], second: Sequence[str], alike: Similarity) -> float:
    """The smaller of two products: each word of one set by its best partner in the other.

    The word whose partner is sought comes first, as in the authors' script: nltk's similarity is not symmetric.
    """
    there = math.prod(max(alike(word, other) for other in second) for word in first)
    back = math.prod(max(alike(word, other) for other in first) for word in second)
    return min(there, back)
