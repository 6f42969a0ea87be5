"""Average normalized Levenshtein similarity, for answers that are read from the image (Biten et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coattn.metrics.judgement import Judgement, Submission


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """The similarity of an answer to the human answer nearest to it.

    Equation 1 of Biten et al. 2019, arXiv 1905.13648: the maximum over the human answers a of 1 - NL(a, prediction),
    or 0 where that is below the threshold; NL is the Levenshtein distance by the length of the longer text. As in the
    official evaluation (https://rrc.cvc.uab.es), capitals and surplus spaces do not matter, and a similarity of exactly
    the threshold counts: "ab" for "ac" is worth 0.5, and 0 by the equation, NL < 0.5.

    Args:
        prediction: the predicted answer.
        answers: the human answers, at least one.
        threshold: the least similarity of an answer that counts as misread and not as wrong.

    Returns:
        The similarity, in [0, 1].
    """
    return max(_similarity(_plain(answer), _plain(prediction), threshold) for answer in set(answers))


def judge_anls(submission: Submission) -> Judgement:
    """Average normalized Levenshtein similarity, threshold 0.5 (ST-VQA, DocVQA, TextVQA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    return Judgement(np.array([anls(answer, record.answers) for answer, record in pairs]))


def levenshtein(first: str, second: str) -> int:
    """The least number of insertions, deletions and replacements of characters that turn one text into the other."""
    above = list(range(len(second) + 1))
    for row, character in enumerate(first, start=1):
        distances = [row]
        for column, other in enumerate(second, start=1):
            distances.append(
                min(above[column] + 1, distances[column - 1] + 1, above[column - 1] + (character != other))
            )
        above = distances
    return above[-1]


def _similarity(answer: str, prediction: str, threshold: float) -> float:
    if answer == prediction:
        return 1.0
    longer = max(len(answer), len(prediction))
    if min(len(answer), len(prediction)) / longer < threshold:  # the distance is at least the difference of the lengths
        return 0.0
    similarity = 1 - levenshtein(answer, prediction) / longer
    return similarity if similarity >= threshold else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
