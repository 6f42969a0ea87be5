from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from coattn.metrics.certificate import Certificate, certified_threshold, certify, excess_p_value


def exact_cdf(count: int, number: int, probability: Fraction) -> float:
    terms = (
        math.comb(number, i) * probability**i * (1 - probability) ** (number - i) for i in range(min(count, number) + 1)
    )
    return float(sum(terms, Fraction(0)))


@pytest.mark.parametrize(("errors", "number", "risk"), [(0, 59, 0.05), (3, 100, 0.1), (20, 60, 0.2), (60, 60, 0.01)])
def test_questions_on_images_apart_are_tested_exactly(errors: int, number: int, risk: float) -> None:
    losses = np.arange(number) < errors
    p_value = excess_p_value(np.ones(number), losses.astype(float), risk, binary=True)
    assert p_value == pytest.approx(exact_cdf(errors, number, Fraction(risk)), rel=1e-9)


def test_without_an_error_images_are_the_units() -> None:
    p_value = excess_p_value(np.full(59, 4.0), np.zeros(59), 0.05, binary=True)
    assert 0.95**59 < p_value < 2 * 0.95**59
    assert excess_p_value(np.array([4.0, 1.0]), np.zeros(2), 0.05, binary=True) > 0.95**2
    assert excess_p_value(np.zeros(3), np.zeros(3), 0.05, binary=True) == 1
    assert excess_p_value(np.full(9, 2.0), np.full(9, 2.0), 0.5, binary=True) == 1


def test_capital_worked_by_hand() -> None:
    # 50 images with two right answers, 30 with one of two right, 20 with a single right answer; all by image.
    sizes = np.repeat([2.0, 2.0, 1.0], [50, 30, 20])
    losses = np.repeat([0.0, 1.0, 0.0], [50, 30, 20])
    capital = 0.0
    for i in range(6):
        stake = 2.0**-i / 0.6
        capital += 2.0 ** -(i + 1) * (1 + stake * 0.4) ** 50 * (1 - stake * 0.1) ** 30 * (1 + stake * 0.2) ** 20
    assert excess_p_value(sizes, losses, 0.4, binary=True) == pytest.approx(1 / capital, rel=1e-9)


def test_bounds_are_above_the_tail_they_bound() -> None:
    # The heaviest dependence within images: all four answers are right or all are wrong.
    for errors in range(12):
        losses = 4.0 * (np.arange(80) < errors)
        bound = excess_p_value(np.full(80, 4.0), losses, 0.2, binary=True)
        assert bound >= exact_cdf(errors, 80, Fraction(1, 5))


def test_images_of_which_some_questions_are_wrong_need_no_more_images() -> None:
    # 400 images with ten questions, 8 % of them wrong and at most one on an image: whole images are not wrong together.
    worth = np.ones(4000)
    worth[np.arange(320) * 10] = 0
    assert certify(np.ones(4000), worth, np.arange(4000) // 10, risks=[0.1])[0].threshold == 1.0
    # The same errors on 32 images: too few images for a statement about such images.
    together = np.arange(4000) >= 320
    assert certify(np.ones(4000), together.astype(float), np.arange(4000) // 10, risks=[0.1])[0].threshold is None


def test_lowest_thresholds_of_a_model_that_knows_what_it_knows() -> None:
    # 1,000 images with one question each: sure and right 800 times, unsure and wrong 200 times.
    confidence = np.where(np.arange(1000) < 800, 0.9, 0.4)
    worth = (confidence > 0.5).astype(float)
    certificates = certify(confidence, worth, range(1000))
    assert [c.risk for c in certificates] == [0.01, 0.05, 0.1, 0.2]
    assert [c.threshold for c in certificates] == [0.9, 0.9, 0.9, 0.9]
    assert [c.coverage for c in certificates] == [0.8] * 4
    assert certify(confidence, worth, range(1000), risks=[0.25])[0].threshold == 0.4
    assert certified_threshold(certificates, 0.07) == 0.9
    assert certified_threshold(certificates, 0.005) is None


def test_too_few_questions_certify_nothing() -> None:
    certificates = certify(np.ones(89), np.ones(89), range(89))
    assert [c.threshold for c in certificates] == [None, None, 1.0, 1.0]
    assert certificates[1].sentence() == "A risk of 5 % is not certifiable with 89 validation questions on 89 images."
    assert certify(np.ones(90), np.ones(90), range(90))[1].threshold == 1.0  # 0.95 ** 90 is below 1 %
    # Ten questions about each of 89 images are worth no more.
    assert certify(np.ones(890), np.ones(890), np.arange(890) // 10)[1].threshold is None


Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


def apart(draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, answers and images of 6,000 questions on as many images."""
    confidence = draws.beta(4, 1, 6000)
    return confidence, (draws.random(6000) < 0.7 + 0.29 * confidence).astype(float), np.arange(6000)


def clustered(draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same on 2,000 images with two to five questions, of which often all are wrong together."""
    images = np.repeat(np.arange(2000), draws.integers(2, 6, 2000))
    ease = draws.beta(8, 1, 2000)
    known = draws.random(2000) < 0.8 + 0.199 * ease
    confidence = np.clip(ease[images] + draws.normal(0, 0.02, len(images)), 0, 1)
    return confidence, (known[images] & (draws.random(len(images)) < 0.999)).astype(float), images


@pytest.mark.parametrize("draw", [apart, clustered])
def test_certificates_hold_on_other_images(draw: Draw) -> None:
    draws = np.random.default_rng(3)
    confidence, worth, images = draw(draws)
    held, made = {0.05: 0, 0.1: 0}, {0.05: 0, 0.1: 0}
    for _ in range(100):
        side = draws.random(images.max() + 1) < 0.5
        validation, test = side[images], ~side[images]
        found = certify(confidence[validation], worth[validation], images[validation], risks=[0.05, 0.1])
        for certificate in found:
            answered = test & (confidence >= (2.0 if certificate.threshold is None else certificate.threshold))
            held[certificate.risk] += not answered.any() or 1 - worth[answered].mean() <= certificate.risk
            made[certificate.risk] += certificate.threshold is not None
    assert min(held.values()) >= 95
    assert min(made.values()) >= 50


def test_partly_right_answers() -> None:
    worth = np.tile([1.0, 0.9, 1.0, 0.9], 100)
    assert certify(np.ones(400), worth, range(400), risks=[0.1])[0].threshold == 1.0
    assert certify(np.ones(400), worth, range(400), risks=[0.04])[0].threshold is None


def test_json_and_its_mistakes() -> None:
    for certificate in certify(np.ones(60), np.ones(60), range(60)):
        assert Certificate.from_json(json.loads(json.dumps(certificate.to_json()))) == certificate
    good = certify(np.ones(60), np.ones(60), range(60))[0].to_json()
    for wrong in ([], {"risk": 1}, good | {"risk": "5 %"}, good | {"coverage": math.nan}):
        with pytest.raises(ValueError, match="a certificate"):
            Certificate.from_json(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"risks": [0.0]}, "between 0 and 1, got 0"),
        ({"level": 1.0}, "at least 0.5 and below 1, got 1"),
        ({"worth": np.ones(3)}, r"worth \(3,\)"),
        ({"confidence": np.array([0.5, np.nan])}, "finite numbers"),
        ({"confidence": np.ones(0), "worth": np.ones(0), "image_ids": []}, "N > 0"),
    ],
)
def test_wrong_inputs_are_refused(changes: dict, message: str) -> None:
    given = {"confidence": np.ones(2), "worth": np.ones(2), "image_ids": [1, 2]} | changes
    with pytest.raises(ValueError, match=message):
        certify(**given)
