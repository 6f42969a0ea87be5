"""Intervals for numbers on other images: the bootstrap and a paired test, both by image.

Questions about one image are not independent, so images are drawn, each with all of its questions (the cluster
bootstrap, Field & Welsh 2007), and intervals are percentiles of the samples (Efron & Tibshirani 1993, chapter 13). With
few images they are too narrow, and with equal images they have no width: `wilson_interval` is for such numbers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from coattn.metrics.judgement import Statistic

LEVEL = 0.95
LEAST_IMAGES = 10  # with fewer the bootstrap has too little to draw from

_CHUNK = 4_000_000  # the largest number of draws, or of cells of a table, in memory at a time


class Images:
    """The image of each question.

    Attributes:
        of: (N,) the image of each question, numbered by first appearance.
        count: number of images.
    """

    def __init__(self, image_ids: Sequence[Hashable]) -> None:
        numbers: dict[str, int] = {}
        self.of = np.array([numbers.setdefault(str(image_id), len(numbers)) for image_id in image_ids], np.int64)
        self.count = len(numbers)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(count,) the sum of `values` (N,) over the questions of each image."""
        return np.bincount(self.of, values, minlength=self.count)

    def samples(self, num_samples: int, seed: int) -> Iterator[np.ndarray]:
        """The number of times each image is drawn, in pieces (b, count): `num_samples` rows, each of `count` draws."""
        draws = np.random.default_rng(seed)
        step = max(1, min(num_samples, _CHUNK // self.count))
        for start in range(0, num_samples, step):
            rows = min(step, num_samples - start)
            drawn = draws.integers(self.count, size=(rows, self.count)) + self.count * np.arange(rows)[:, None]
            yield np.bincount(drawn.ravel(), minlength=rows * self.count).reshape(rows, self.count)


def mean_samples(
    images: Images, values: np.ndarray, columns: np.ndarray, num_columns: int, *, num_samples: int, seed: int = 0
) -> np.ndarray:
    """Means over the questions of each column, on samples of the images.

    Args:
        images: the image of each question.
        values: (M,) the values to average; NaN never.
        columns: (2, M) int64, for each value its question and its column.
        num_columns: K.
        num_samples: S.
        seed: the seed of the draws; the same seed draws the same images.

    Returns:
        (S, K), NaN where a sample has no question of the column.
    """
    samples = np.empty((num_samples, num_columns))
    width = max(1, _CHUNK // images.count)
    image = images.of[columns[0]]
    for first in range(0, num_columns, width):
        last = min(first + width, num_columns)
        inside = (columns[1] >= first) & (columns[1] < last)
        cells = image[inside] * (last - first) + columns[1][inside] - first
        shape = (images.count, last - first)
        sums = np.bincount(cells, values[inside], minlength=shape[0] * shape[1]).reshape(shape)
        counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        start = 0
        for drawn in images.samples(num_samples, seed):
            weights, rows = drawn.astype(np.float64), slice(start, start + len(drawn))
            with np.errstate(invalid="ignore"):
                samples[rows, first:last] = (weights @ sums) / (weights @ counts)
            start += len(drawn)
    return samples


def statistic_samples(
    images: Images, statistics: Sequence[Statistic], *, num_samples: int, seed: int = 0
) -> np.ndarray:
    """The numbers of all statistics side by side, (S, K), on the same samples as `mean_samples`."""
    rows = []
    for drawn in images.samples(num_samples, seed):
        for counts in drawn:
            weights = counts[images.of]
            with np.errstate(invalid="ignore"):  # 0 / 0 in a sample without any question that counts
                rows.append(np.concatenate([statistic.compute(weights) for statistic in statistics]))
    return np.stack(rows)


def intervals(samples: np.ndarray) -> np.ndarray:
    """The percentile interval at LEVEL of each column of (S, K): (K, 2). NaN if no sample has the number."""
    tail = 100 * (1 - LEVEL) / 2
    bounds = np.full((samples.shape[1], 2), np.nan)
    known = ~np.isnan(samples).all(axis=0)
    if known.any():
        bounds[known] = np.nanpercentile(samples[:, known], [tail, 100 - tail], axis=0).T
    return bounds


def wilson_interval(mean: float, count: int) -> tuple[float, float]:
    """The interval of Wilson (1927) at LEVEL for a mean in [0, 1] of `count` independent values in [0, 1]."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    center = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    return max(center - half, 0.0), min(center + half, 1.0)


class Difference(NamedTuple):
    """The mean of paired differences, its interval and its p-value.

    Attributes:
        value: first minus second.
        low: lower end of the interval at LEVEL, paired bootstrap by image.
        high: upper end.
        p_value: of the sign-flip permutation test by image, two-sided.
    """

    value: float
    low: float
    high: float
    p_value: float


def paired_test(
    first: np.ndarray, second: np.ndarray, images: Images, *, num_samples: int = 1000, num_flips: int = 10_000
) -> Difference:
    """Test whether two sets of answers to the same questions differ by more than chance.

    The interval is that of a paired bootstrap: both answers to a question are drawn together. The p-value is that of a
    permutation test: without a difference the sign on each image is arbitrary, so the signs are flipped at random;
    p = (1 + flips with at least this absolute sum) / (1 + flips) (Phipson & Smyth 2010, arXiv 1603.05766).

    With fewer than LEAST_IMAGES images the interval is Wilson's with images as units. If all images have the same
    difference, it allows for as large a share of other images as Wilson's interval does, with any difference.

    Args:
        first: (N,) the worth of each answer; questions that are NaN in either set are left out.
        second: (N,) the worth of the answers to compare with.
        images: the image of each question.
        num_samples: the number of bootstrap samples.
        num_flips: the number of random flips; p cannot be smaller than 1 / (1 + num_flips).

    Raises:
        ValueError: no question counts in both sets.
    """
    counted = np.flatnonzero(~np.isnan(first - second))
    if not len(counted):
        raise ValueError(f"none of the {len(first)} questions counts in both sets of answers: nothing can be compared")
    differences = (first - second)[counted]
    columns = np.stack([counted, np.zeros(len(counted), np.int64)])
    low, high = intervals(mean_samples(images, differences, columns, 1, num_samples=num_samples))[0]
    value, num_images = differences.mean(), len(np.unique(images.of[counted]))
    if num_images < LEAST_IMAGES:
        low, high = (2 * bound - 1 for bound in wilson_interval((1 + value) / 2, num_images))
    elif high - low < 1e-9:
        others = 1 - wilson_interval(1.0, num_images)[0]
        low, high = value - others * (1 + value), value + others * (1 - value)
    sums = np.bincount(images.of[counted], differences, minlength=images.count)
    sums = sums[sums != 0]  # flipping a sign changes nothing there
    observed = abs(sums.sum())
    draws, extreme, step = np.random.default_rng(1), 0, max(1, _CHUNK // max(len(sums), 1))
    for start in range(0, num_flips, step):
        rows = min(step, num_flips - start)
        signs = 2.0 * draws.integers(2, size=(rows, len(sums)), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ sums) >= observed - 1e-9).sum())
    return Difference(float(value), float(low), float(high), (1 + extreme) / (1 + num_flips))
