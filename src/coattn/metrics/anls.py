"""Average normalised Levenshtein similarity, for answers that are read from the image (Biten et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coattn.metrics.judgement import Judgement, Submission


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """The similarity of an answer to the human answer nearest to it.

    Equation 1 of Biten et al. 2019, arXiv 1905.13648: the maximum over the human answers a of 1 - NL(a, prediction)
    where NL < threshold, else 0; NL is the Levenshtein distance by the length of the longer text. As in the official
    evaluation (https://rrc.cvc.uab.es), capitals and surplus spaces do not matter. At NL equal to the threshold, 0.5,
    the equation gives 0 and so does this; the server's script gives 0.5 there.

    Args:
        prediction: the predicted answer.
        answers: the human answers, at least one.
        threshold: from which distance on an answer is wrong and not just badly read.

    Returns:
        The similarity, in [0, 1].
    """
    return max(_similarity(_plain(answer), _plain(prediction), threshold) for answer in set(answers))


def judge_anls(submission: Submission) -> Judgement:
    """Average normalised Levenshtein similarity, threshold 0.5 (ST-VQA, DocVQA, TextVQA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    return Judgement(np.array([anls(answer, record.answers) for answer, record in pairs]))


def levenshtein(first: str, second: str) -> int:
    """The least number of insertions, deletions and replacements of characters that make one text of the other."""
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
    if abs(len(answer) - len(prediction)) >= threshold * longer:  # the distance is at least that of the lengths
        return 0.0
    distance = levenshtein(answer, prediction) / longer
    return 1 - distance if distance < threshold else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
