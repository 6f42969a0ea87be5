"""Risk certificates: the confidence from which on at most a wished share of a model's answers is wrong.

A question has a confidence in [0, 1], and its answer is worth `worth` in [0, 1]. The risk of a threshold t is the mean
of 1 - worth over the questions whose confidence is at least t. A certificate for the risk r names the lowest threshold
of which a test says that its risk is at most r on further images of the same kind ("learn then test", Angelopoulos et
al. 2021, arXiv 2110.01052; with one question per image, selective prediction with guaranteed risk, Geifman & El-Yaniv
2017, arXiv 1705.08500).

The test of one threshold. Questions about one image are not independent, so whole images are the units. Let n_j
questions of image j be answered, with the summed error L_j. If the risk were above r, L_j - r n_j would have a positive
mean, and what was observed would have at most this probability:

- P(Binomial(n, r) <= number of errors), the exact test of Clopper & Pearson (1934), where every image has one question
  and every answer is right or wrong;
- elsewhere 1 / W of a bet on the images (Waudby-Smith & Ramdas 2024, arXiv 2010.09686). With M = max n_j, the capital

      W = sum over i of 2^-(i + 1) prod_j (1 + b_i (r n_j - L_j) / M),    b_i = 2^-i / (1 - r),    i = 0 ... 5

  begins as at most 1. If the risk were above r, each factor would have a mean below 1, and W would be at least 1 / p
  with at most the probability p (Markov). That holds for any dependence within an image, for partly right answers, and
  where the images with many answered questions are the difficult ones; it assumes that no further image has more than M
  answered questions. Without any error 1 / W is at most twice the exact test with images as its units.

The level. The risk that a user sees is that of a finite set of further questions, which varies too. With as many images
as in validation the difference of the two risks has twice the variance, so the test's error probability is
Phi(sqrt(2) Phi^-1(0.05)) = 1 %: the mean risk is then at most r with 99 %, and that of such a further set with 95 %.

The sequence of thresholds. They are at the coverages 5 %, 10 %, ..., 100 % of the validation questions and do not
depend on which answers are right. They are tested from the highest down by the fallback procedure (Wiens 2003), a
fixed-sequence test that a failure does not end: each threshold with enough questions to be certified at all has an
equal part of the error probability, and a threshold that passes hands its part on to the next one.

A certificate is about images and questions like those of validation, and about their average. It says nothing about a
single answer, nor about images of another kind.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from coattn.metrics.bootstrap import Images
from coattn.metrics.confidence import RISKS

LEVEL = 0.95
_NUM_STEPS = 20
_STAKES = 0.5 ** np.arange(6)[:, None]  # (stakes, 1)


class Certificate(NamedTuple):
    """The certificate of one risk.

    Attributes:
        risk: the largest mean error, in (0, 1), for example 0.05 for 5 % wrong answers.
        threshold: answers with at least this confidence keep to it; None if no threshold could be certified.
        coverage: the share of the validation questions that are answered at this threshold; 0 without one.
        observed: the mean error of those on validation; 0 without a threshold.
        num_questions: validation questions.
        num_images: their images.
        level: the probability with which it holds on a further set of as many images.
    """

    risk: float
    threshold: float | None
    coverage: float
    observed: float
    num_questions: int
    num_images: int
    level: float = LEVEL

    def sentence(self) -> str:
        """The certificate in one sentence, for people."""
        made = f"{self.num_questions} validation questions on {self.num_images} images"
        if self.threshold is None:
            return f"A risk of {100 * self.risk:g} % is not certifiable with {made}."
        return (
            f"Answers with a confidence of at least {self.threshold:.4g} are wrong in at most {100 * self.risk:g} % of "
            f"cases ({100 * self.level:g} % certain; {100 * self.coverage:.1f} % of {made} are answered, "
            f"{100 * self.observed:.2f} % of them wrongly)."
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return self._asdict()

    @classmethod
    def from_json(cls, value: Any) -> Certificate:
        """The certificate that `to_json` described.

        Raises:
            ValueError: the value does not describe a certificate.
        """
        if not isinstance(value, dict) or set(value) != set(cls._fields):
            raise ValueError(f"a certificate is an object with {', '.join(cls._fields)}, got {str(value)[:80]}")
        numbers = [number for name, number in value.items() if not (name == "threshold" and number is None)]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"a certificate holds finite numbers, got {str(value)[:80]}")
        return cls(**value)


def certify(
    confidence: np.ndarray,
    worth: np.ndarray,
    image_ids: Sequence[Hashable],
    *,
    risks: Sequence[float] = RISKS,
    level: float = LEVEL,
) -> list[Certificate]:
    """A certificate for each risk, from a model's answers to validation questions it was not trained on.

    Args:
        confidence: (N,) of each answer, in [0, 1].
        worth: (N,) of each answer, in [0, 1].
        image_ids: (N,) the image of each question.
        risks: the risks to certify, in (0, 1).
        level: the probability with which a certificate holds on a further set of as many images, in [0.5, 1).

    Raises:
        ValueError: the shapes differ, there are no questions, or a value is out of its range.
    """
    if confidence.shape != worth.shape or confidence.shape != (len(image_ids),) or not len(worth):
        raise ValueError(
            f"confidence {confidence.shape}, worth {worth.shape} and {len(image_ids)} image ids must all be (N,), N > 0"
        )
    if not all(((values >= 0) & (values <= 1)).all() for values in (confidence, worth)):
        raise ValueError("confidence and worth must be finite numbers in [0, 1]")
    if wrong := [risk for risk in risks if not 0 < risk < 1]:
        raise ValueError(f"a risk must be between 0 and 1, got {wrong[0]}")
    if not 0.5 <= level < 1:
        raise ValueError(f"a level must be at least 0.5 and below 1, got {level}")
    from statistics import NormalDist  # its import takes as long as asking a question

    normal = NormalDist()
    error = normal.cdf(math.sqrt(2) * normal.inv_cdf(1 - level))
    images = Images(image_ids)
    falling = -np.sort(-confidence)
    places = np.ceil(np.arange(1, _NUM_STEPS + 1) / _NUM_STEPS * len(falling)).astype(np.int64) - 1
    thresholds = np.unique(falling[places])[::-1]
    answered = [confidence >= threshold for threshold in thresholds.tolist()]
    sizes = [images.sums(mask.astype(np.float64)) for mask in answered]
    losses = [images.sums(mask * (1 - worth)) for mask in answered]
    binary = bool(np.isin(worth, (0, 1)).all())
    certificates = []
    for risk in risks:
        chosen = _lowest(sizes, losses, risk, error, binary)
        if chosen is None:
            certificates.append(Certificate(risk, None, 0.0, 0.0, len(worth), images.count, level))
            continue
        mask, threshold = answered[chosen], float(thresholds[chosen])
        coverage, observed = float(mask.mean()), float(1 - worth[mask].mean())
        certificates.append(Certificate(risk, threshold, coverage, observed, len(worth), images.count, level))
    return certificates


def certified_threshold(certificates: Sequence[Certificate], risk: float) -> float | None:
    """The lowest threshold that is certified for a risk of at most `risk`; None if there is none."""
    thresholds = [c.threshold for c in certificates if c.risk <= risk and c.threshold is not None]
    return min(thresholds, default=None)


def excess_p_value(sizes: np.ndarray, losses: np.ndarray, risk: float, *, binary: bool) -> float:
    """The largest probability of a loss this small if the risk were above `risk`; see the module.

    Args:
        sizes: (J,) answered questions of each image.
        losses: (J,) their summed errors.
        risk: in (0, 1).
        binary: whether every error is 0 or 1.
    """
    largest = sizes.max(initial=0)
    if largest == 1 and binary:
        return _binomial_cdf(round(losses.sum()), round(sizes.sum()), risk)
    gains = np.maximum(_STAKES / (1 - risk) * (risk * sizes - losses) / max(largest, 1), -1)  # (stakes, J)
    with np.errstate(divide="ignore"):  # all is lost on an image without a right answer
        capital = np.exp(np.log1p(gains).sum(1))
    return float(1 / max(_STAKES[:, 0] / 2 @ capital, 1.0))


def _lowest(
    sizes: Sequence[np.ndarray], losses: Sequence[np.ndarray], risk: float, error: float, binary: bool
) -> int | None:
    """The last threshold that the fallback procedure certifies."""
    able = [excess_p_value(size, np.zeros_like(size), risk, binary=binary) <= error for size in sizes]
    lowest, carried = None, 0.0
    for step, (size, loss) in enumerate(zip(sizes, losses, strict=True)):
        allowed = carried + able[step] * error / max(sum(able), 1)
        passed = excess_p_value(size, loss, risk, binary=binary) <= allowed
        lowest, carried = (step, allowed) if passed else (lowest, 0.0)
    return lowest


def _binomial_cdf(count: int, number: int, probability: float) -> float:
    """P(X <= count) of a binomial distribution, by its logarithms."""
    if count >= number:
        return 1.0
    steps = np.arange(1, count + 1)
    ratios = np.log((number - steps + 1) / steps) + math.log(probability) - math.log1p(-probability)
    logs = np.concatenate([[0.0], ratios.cumsum()]) + number * math.log1p(-probability)
    return float(min(np.exp(logs).sum(), 1.0))
