"""How faithful explanations are: does the answer change with the parts that an explanation calls important?

Regions are shown from the most to the least important one (insertion) and removed in the same order (deletion; Petsiuk
et al. 2018, arXiv 1806.07421), and the probability of the predicted answer is followed. The score of an order is the
area under insertion minus that under deletion, minus the same for random orders, in points: 0 is worthless.

Regions are removed in two ways, because a method could suit one of them only: by the mask, and by the mean feature of
the training images. The control orders the regions by the values of other questions about other images: an explanation
that scores no more than the control says nothing about its question and image. The control scores more than 0 where the
parts that matter are mostly in the same places, for example in the middle of the image.

Letters: R regions, K = R + 1 steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn._internal.files import atomic_path, read_json
from coattn.explain.methods import METHODS
from coattn.metrics.bootstrap import LEAST_IMAGES, Images, intervals, mean_samples
from coattn.serialization.files import FAITHFULNESS
from coattn.serialization.sections import write_section

SECTION = "How faithful explanations are"
NUM_RANDOM = 4  # random orders of a question, of which the mean counts
NUM_OTHERS = 4  # other images whose values are the control, likewise; a single one doubles the spread on easy-VQA
STEPS = 21  # of a curve, from nothing to everything
NUM_SAMPLES = 1000
CONTROL = "other questions'"
RANDOM = "random"


class Curves(NamedTuple):
    """The probability of the answer along an order of the regions.

    Attributes:
        insertion: (K,) with the first k regions shown.
        deletion: (K,) with the first k regions removed.
    """

    insertion: np.ndarray
    deletion: np.ndarray

    @property
    def gap(self) -> float:
        """The area under insertion minus that under deletion, in points."""
        return 100 * (_area(self.insertion) - _area(self.deletion))


def follow(value: Callable[[np.ndarray], np.ndarray], orders: Sequence[np.ndarray]) -> list[Curves]:
    """The curves of several orders of the same R regions, from one call of `value`.

    Args:
        value: the probability (N,) of the answer where only some regions are shown, (N, R) bool.
        orders: each (R,), the regions from the most to the least important.
    """
    count = len(orders[0])
    rank = np.stack([np.argsort(order) for order in orders])  # (orders, R)
    shown = rank[:, None, :] < np.arange(count + 1)[None, :, None]  # (orders, K, R)
    both = value(np.concatenate((shown, ~shown), 1).reshape(-1, count)).reshape(len(orders), 2, count + 1)
    return [Curves(insertion, deletion) for insertion, deletion in both]


class QuestionScores(NamedTuple):
    """The measurements of one question: scores and curves by way of removal and name of a method (or `CONTROL`).

    Attributes:
        image_id: the image, to draw whole images in the bootstrap.
        kind: the type of the question.
        scores: way -> name -> points above the random orders.
        curves: way -> name, or `RANDOM` -> curves at `STEPS` steps.
        seconds: name of a method -> CPU time of its explanation.
    """

    image_id: str
    kind: str
    scores: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Curves]]
    seconds: dict[str, float]


def measure(
    values: Mapping[str, np.ndarray],
    others: Sequence[np.ndarray],
    ways: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    *,
    seed: int,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Curves]]]:
    """The scores and curves of several explanations of one question; see `QuestionScores`.

    Args:
        values: name -> value (R,) of each region.
        others: the values of other questions, for the control; cut to R or repeated.
        ways: way of removal -> the probability that `follow` calls.
        seed: of the random orders.
    """
    count = len(next(iter(values.values())))
    draws = np.random.default_rng(seed)
    orders = {name: [_decreasing(each)] for name, each in values.items()}
    orders[CONTROL] = [_decreasing(np.resize(other, count)) for other in others]
    orders[RANDOM] = [draws.permutation(count) for _ in range(NUM_RANDOM)]
    scores: dict[str, dict[str, float]] = {}
    curves: dict[str, dict[str, Curves]] = {}
    for way, value in ways.items():
        followed = iter(follow(value, [order for group in orders.values() for order in group]))
        means = {name: _mean([next(followed) for _ in group]) for name, group in orders.items()}
        scores[way] = {name: means[name].gap - means[RANDOM].gap for name in (*values, CONTROL)}
        curves[way] = {name: Curves(*map(_resampled, mean)) for name, mean in means.items()}
    return scores, curves


def summary(questions: Sequence[QuestionScores], split: str) -> dict[str, Any]:
    """All numbers as plain values: means, intervals at 95 % by image, by kind, curves and cost."""
    images = Images([question.image_id for question in questions])
    kinds = sorted({question.kind for question in questions})
    ways = list(questions[0].scores)
    names = list(questions[0].scores[ways[0]])

    def numbers(points: np.ndarray) -> dict[str, float]:
        columns = np.stack([np.arange(len(points)), np.zeros(len(points), np.int64)])
        low, high = intervals(mean_samples(images, points, columns, 1, num_samples=NUM_SAMPLES))[0]
        return {"score": round(float(points.mean()), 2), "low": round(float(low), 2), "high": round(float(high), 2)}

    report: dict[str, Any] = {"split": split, "questions": len(questions), "images": images.count, "methods": {}}
    for name in names:
        entry: dict[str, Any] = {}
        for way in ways:
            points = np.array([question.scores[way][name] for question in questions])
            entry[way] = numbers(points)
            entry[way]["by_type"] = {
                kind: round(float(points[[question.kind == kind for question in questions]].mean()), 2)
                for kind in kinds
            }
            if name != names[0]:  # paired: the default method minus this one, on the same questions
                first = np.array([question.scores[way][names[0]] for question in questions])
                entry[way]["default_minus_this"] = numbers(first - points)
            entry[way]["curves"] = _mean_curves([question.curves[way][name] for question in questions])
        if name in METHODS:
            entry["passes"] = METHODS[name].passes
            times = [question.seconds[name] for question in questions]
            entry["cpu_ms"] = round(1000 * float(np.median(times)), 2)
        report["methods"][name] = entry
    report[RANDOM] = {way: _mean_curves([question.curves[way][RANDOM] for question in questions]) for way in ways}
    return report


def table(report: Mapping[str, Any]) -> str:
    """The report as a table for people, in points above a random order."""
    ways = list(report[RANDOM])
    kinds = list(next(iter(report["methods"].values()))[ways[0]]["by_type"])
    kinds = kinds if len(kinds) > 1 else []
    head = ["method", *(f"removed by {way}" for way in ways), *(kind or "(no type)" for kind in kinds), "CPU ms"]
    rows = [head]
    for name, entry in report["methods"].items():
        cells = [f"{entry[way]['score']:.1f} [{entry[way]['low']:.1f}, {entry[way]['high']:.1f}]" for way in ways]
        by_kind = [f"{entry[ways[0]]['by_type'][kind]:.1f}" for kind in kinds]
        rows.append([name, *cells, *by_kind, f"{entry['cpu_ms']:.1f}" if "cpu_ms" in entry else ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    what = f"{report['questions']} {report['split']} questions on {report['images']} images"
    if report["images"] < LEAST_IMAGES:
        what += f"; with fewer than {LEAST_IMAGES} the intervals are too narrow"
    return "\n".join([f"points above a random order, 95 % intervals by image, {what}", "", *lines])


def save_report(folder: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Keep a report in a model directory, and write it into its card."""
    with atomic_path(Path(folder) / FAITHFULNESS) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    indented = "\n".join(f"    {line}".rstrip() for line in table(report).splitlines())
    text = f"Area under insertion minus area under deletion of the predicted answer's probability.\n\n{indented}"
    write_section(folder, SECTION, text)


def read_scores(folder: str | os.PathLike[str]) -> dict[str, float]:
    """The score of each method, with regions removed by the mask, as a model directory keeps it; empty without any.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder) / FAITHFULNESS
    if not path.is_file():
        return {}
    try:
        return {name: float(entry["mask"]["score"]) for name, entry in read_json(path)["methods"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a report of `coattn explain-test` ({error!r})") from None


def _mean_curves(curves: Sequence[Curves]) -> dict[str, list[float]]:
    return {name: curve.round(4).tolist() for name, curve in _mean(curves)._asdict().items()}


def _mean(curves: Sequence[Curves]) -> Curves:
    return Curves(*np.mean(curves, 0))


def _decreasing(values: np.ndarray) -> np.ndarray:
    """The regions from the highest to the lowest value; equal ones in their order."""
    return np.argsort(-values, kind="stable")


def _area(curve: np.ndarray) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _resampled(curve: np.ndarray) -> np.ndarray:
    return np.interp(np.linspace(0, 1, STEPS), np.linspace(0, 1, len(curve)), curve)
