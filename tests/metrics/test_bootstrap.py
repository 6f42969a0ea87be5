from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.bootstrap import (
    Images,
    intervals,
    mean_samples,
    paired_test,
    statistic_samples,
    wilson_interval,
)
from coattn.metrics.confidence import confidence_statistic
from coattn.metrics.score import compare, judge, score


def columns(places: list[int], numbers: list[int]) -> np.ndarray:
    return np.array([places, numbers])


def test_every_sample_draws_as_many_images_as_there_are() -> None:
    images = Images(["a", "b", "a", 7, "7"])
    assert (images.of.tolist(), images.count) == ([0, 1, 0, 2, 2], 3)
    drawn = np.concatenate([*images.samples(4000, seed=0)])
    assert drawn.shape == (4000, 3)
    assert (drawn.sum(axis=1) == 3).all()
    # Each of the 27 ordered draws is as likely: (3, 0, 0) has 1 of them, (1, 1, 1) has 6.
    assert (drawn == [3, 0, 0]).all(axis=1).mean() == pytest.approx(1 / 27, abs=0.012)
    assert (drawn == [1, 1, 1]).all(axis=1).mean() == pytest.approx(6 / 27, abs=0.025)


def test_means_equal_drawing_question_by_question() -> None:
    chance = np.random.default_rng(0)
    image_ids = chance.integers(6, size=30).tolist()
    values, images = chance.random(30), Images(image_ids)
    odd = [i for i in range(30) if i % 2]
    cells = columns([*range(30), *odd], [0] * 30 + [1] * len(odd))
    samples = mean_samples(images, np.concatenate([values, values[odd]]), cells, 2, num_samples=50, seed=3)
    drawn = np.concatenate([*images.samples(50, seed=3)])
    for sample, counts in zip(samples, drawn, strict=True):
        chosen = [i for i in range(30) for _ in range(counts[images.of[i]])]
        assert sample[0] == pytest.approx(values[chosen].mean())
        chosen = [i for i in chosen if i % 2]
        assert sample[1] == pytest.approx(values[chosen].mean()) if chosen else math.isnan(sample[1])


def test_statistics_use_the_same_samples() -> None:
    chance = np.random.default_rng(0)
    confidence, worth = chance.random(40), (chance.random(40) < 0.6).astype(float)
    images = Images(chance.integers(8, size=40).tolist())
    statistic = confidence_statistic(confidence, worth)
    samples = statistic_samples(images, [statistic], num_samples=20, seed=5)
    for sample, counts in zip(samples, np.concatenate([*images.samples(20, seed=5)]), strict=True):
        chosen = np.repeat(np.arange(40), counts[images.of])
        copy = confidence_statistic(confidence[chosen], worth[chosen])
        assert sample == pytest.approx(copy.compute(np.ones(len(chosen), np.int64)))


def test_intervals_are_percentiles_and_leave_out_what_is_not_there() -> None:
    samples = np.stack([np.arange(1001.0), np.full(1001, np.nan), np.arange(1001.0)], axis=1)
    samples[0, 2] = np.nan
    bounds = intervals(samples)
    assert bounds[0] == pytest.approx([25, 975])
    assert np.isnan(bounds[1]).all()
    assert bounds[2] == pytest.approx([25.975, 975.025])


def test_interval_of_independent_questions_is_the_normal_one() -> None:
    chance = np.random.default_rng(1)
    worth = (chance.random(4000) < 0.3).astype(float)
    images = Images(range(4000))
    samples = mean_samples(images, worth, columns([*range(4000)], [0] * 4000), 1, num_samples=2000)
    low, high = intervals(samples)[0]
    half = 1.96 * worth.std() / math.sqrt(4000)
    assert (low, high) == (
        pytest.approx(worth.mean() - half, abs=0.1 * half),
        pytest.approx(worth.mean() + half, abs=0.1 * half),
    )


def test_wilson_intervals_by_hand() -> None:
    assert wilson_interval(1.0, 1) == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert wilson_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Newcombe 1998
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_few_images_and_equal_answers_have_no_interval_without_width() -> None:
    rows = [Record(i, i, "q", ("yes",), answer_type="rare" if i == 0 else "often") for i in range(60)]
    scores = score(dict.fromkeys(range(60), "yes"), rows, "exact_match", num_samples=100)
    assert scores.numbers["answer type"]["rare"].interval == (20.65, 100.0)
    assert scores.numbers["answer type"]["often"].interval == (93.89, 100.0)
    assert any("fewer than 10 images" in note for note in scores.notes)
    one_image = [Record(i, "same", "q", ("yes",)) for i in range(60)]
    scores = score(dict.fromkeys(range(60), "yes"), one_image, "exact_match", num_samples=100)
    assert scores.numbers["all questions"]["exact_match"].interval == (20.65, 100.0)


def test_questions_about_one_image_widen_the_interval() -> None:
    """Ten equal answers per image say no more than one: the interval is sqrt(10) times as wide."""
    chance = np.random.default_rng(2)
    worth = np.repeat((chance.random(300) < 0.5).astype(float), 10)
    records = [Record(i, i // 10, "q", ("cat",)) for i in range(3000)]
    alone = [Record(i, i, "q", ("cat",)) for i in range(3000)]
    results = {i: "cat" if right else "dog" for i, right in enumerate(worth)}
    widths = []
    for rows in (records, alone):
        low, high = (
            score(results, rows, "exact_match", num_samples=1000).numbers["all questions"]["exact_match"].interval
        )
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.1)


def test_every_number_has_an_interval_around_it() -> None:
    chance = np.random.default_rng(3)
    records = [Record(i, i % 40, "q", ("cat",), answer_type="ab"[i % 2], question_type="what") for i in range(400)]
    right = chance.random(400) < 0.6
    results = Results(
        {i: "cat" if right[i] else "dog" for i in range(400)},
        {i: min(1, max(0, 0.3 * right[i] + 0.7 * chance.random())) for i in range(400)},
    )
    scores = score(results, records, "exact_match", num_samples=300)
    numbers = {(title, name): n for title, block in scores.numbers.items() for name, n in block.items()}
    assert len(numbers) == 1 + 2 + 1 + 3 + 6
    for (_, name), number in numbers.items():
        low, high = number.interval
        assert low <= number.value <= high or name == "expected calibration error", name  # whose bootstrap is biased
        assert (low < high) or "coverage" in name or "cost 100" in name
    again = score(results, records, "exact_match", num_samples=300)
    assert again.numbers == scores.numbers
    assert "95 % interval" in scores.table()
    low, high = numbers["all questions", "exact_match"].interval
    assert f"{low:.2f} -  {high:.2f}" in scores.table()
    written = scores.to_json()["numbers"]["answer type"]["a"]
    assert set(written) == {"value", "questions", "interval"}


def exact_p_value(sums: list[float]) -> float:
    observed = abs(sum(sums))
    flips = [
        abs(sum(s * d for s, d in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    return sum(flip >= observed - 1e-9 for flip in flips) / len(flips)


def test_paired_test_equals_all_flips() -> None:
    chance = np.random.default_rng(4)
    image_ids = np.repeat(np.arange(9), 5).tolist()
    first, second = chance.choice([0, 0.3, 0.6, 1], (2, 45))
    difference = paired_test(first, second, Images(image_ids), num_flips=40_000)
    sums = [float((first - second)[number * 5 : number * 5 + 5].sum()) for number in range(9)]
    assert difference.value == pytest.approx((first - second).mean())
    assert difference.p_value == pytest.approx(exact_p_value(sums), abs=0.01)
    assert difference.low < difference.value < difference.high


def test_few_images_leave_most_differences_possible() -> None:
    found = paired_test(np.ones(3), np.zeros(3), Images(["a"] * 3))
    assert found == pytest.approx((1, 2 * 0.2065 - 1, 1, 1), abs=1e-3)
    signs = np.array([1.0, -1, 0, 0, 0])
    found = paired_test(signs.clip(0), -signs.clip(None, 0), Images(range(5)))
    assert found == pytest.approx((0, 2 * 0.1705 - 1, 2 * 0.8295 - 1, 1), abs=1e-3)  # Wilson's of 2.5 in 5


def test_nothing_is_compared_without_a_question_that_counts_in_both() -> None:
    one, other = np.array([1.0, np.nan]), np.array([np.nan, 0.0])
    with pytest.raises(ValueError, match="none of the 2 questions counts in both sets"):
        paired_test(one, other, Images(["a", "b"]))


def test_paired_test_of_equal_and_of_opposite_answers() -> None:
    others = 1.95996**2 / (100 + 1.95996**2)  # Wilson's largest share of other images, after 100 that are alike
    worth = np.array([0.0, 1.0] * 50)
    same = paired_test(worth, worth, Images(range(100)))
    assert same == pytest.approx((0, -others, others, 1), abs=1e-5)
    better = paired_test(np.ones(100), np.zeros(100), Images(range(100)))
    assert better == pytest.approx((1, 1 - 2 * others, 1, 1 / 10_001), abs=1e-5)


def test_p_values_of_equal_systems_are_even() -> None:
    chance = np.random.default_rng(5)
    images = Images(np.repeat(np.arange(60), 3).tolist())
    p_values = []
    for _ in range(200):
        first, second = chance.random((2, 180)) < 0.5
        p_values.append(paired_test(first * 1.0, second * 1.0, images, num_samples=2, num_flips=300).p_value)
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.045)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_compare_leaves_out_what_has_no_pairs() -> None:
    def question(number: int, *entailed: str) -> Record:
        return Record(str(number), number, "q", ("yes",), extra={"entailed": [*entailed]})

    records = [question(1, "2"), question(2, "1"), question(3)]
    first, second = (
        judge(Results(dict(zip("123", answers, strict=True))), records, "gqa")
        for answers in (["yes", "no", "no"], ["yes", "yes", "no"])
    )
    assert {*first.means} == {*second.means} == {"consistency"}
    assert {*compare(first, second, records, "gqa", num_samples=10)} == {"gqa"}
    assert {*compare(first, first, records, "gqa", num_samples=10)} == {"gqa", "consistency"}


def test_compare_in_points_of_percent() -> None:
    records = [Record(i, i, "q", ("cat",)) for i in range(10)]
    first = judge(Results(dict.fromkeys(range(10), "cat")), records, "exact_match")
    second = judge(Results({i: "cat" if i < 7 else "dog" for i in range(10)}), records, "exact_match")
    difference = compare(first, second, records, "exact_match", num_samples=100)["exact_match"]
    assert difference.value == 30
    assert difference.p_value == pytest.approx(2 / 8, abs=0.02)  # three signs, of which two agree in all
