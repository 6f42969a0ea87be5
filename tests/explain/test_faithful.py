from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.explain.faithful import CONTROL, QuestionScores, follow, measure, read_scores, save_report, summary, table
from coattn.visualization.faithfulness import draw_faithfulness

NUM_REGIONS = 8


def only_region_2(kept: np.ndarray) -> np.ndarray:
    """The probability of an answer that is certain if region 2 is shown, and impossible otherwise."""
    return kept[:, 2].astype(float)


def values(best: int) -> np.ndarray:
    return np.eye(NUM_REGIONS)[best]


def questions() -> list[QuestionScores]:
    found = []
    for number in range(12):
        ways = {"mask": only_region_2, "mean feature": only_region_2}
        given = {"dependence": values(2), "attention": values(5)}
        scores, curves = measure(given, [values(number % NUM_REGIONS)], ways, seed=number)
        seconds = {"dependence": 0.004, "attention": 0.001}
        found.append(QuestionScores(str(number // 2), "color" if number % 2 else "shape", scores, curves, seconds))
    return found


def test_curves_follow_the_order() -> None:
    first, last = follow(only_region_2, [np.array([2, 0, 1]), np.array([0, 1, 2])])
    np.testing.assert_allclose(first.insertion, [0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(first.deletion, [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(last.insertion, [0, 0, 0, 1], atol=1e-6)
    # Trapezoids: insertion (1/2 + 1 + 1) / 3, deletion (1/2) / 3.
    assert first.gap == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert last.gap == pytest.approx(-100 * 2 / 3, abs=1e-3)


def test_the_right_region_scores_and_chance_is_zero() -> None:
    report = summary(questions(), "val")
    methods = report["methods"]
    assert methods["dependence"]["mask"]["score"] > 60
    assert methods["attention"]["mask"]["score"] < 20
    random_values = [np.random.default_rng(seed).random(NUM_REGIONS) for seed in range(400)]
    scores = [
        measure({"x": each}, [values(2)], {"mask": only_region_2}, seed=n)[0] for n, each in enumerate(random_values)
    ]
    assert abs(np.mean([each["mask"]["x"] for each in scores])) < 8
    assert methods["attention"]["mask"]["default_minus_this"]["low"] > 20
    assert methods["dependence"]["cpu_ms"] == 4.0
    assert set(methods["dependence"]["mask"]["by_type"]) == {"color", "shape"}
    assert (report["questions"], report["images"]) == (12, 6)


def test_the_control_is_the_mean_of_several_others() -> None:
    def score(*others: np.ndarray) -> float:
        scores, _ = measure({"x": values(2)}, others, {"mask": only_region_2}, seed=0)
        return scores["mask"][CONTROL]

    right, wrong = score(values(2)), score(values(7))
    assert right > wrong + 10
    assert score(values(2), values(7), values(2), values(7)) == pytest.approx((right + wrong) / 2)
    assert score(values(2)[:4]) == pytest.approx(right)  # an image of fewer regions: its values are repeated


def test_the_report_is_kept_in_the_model_directory(tmp_path: Path) -> None:
    report = summary(questions(), "val")
    assert read_scores(tmp_path) == {}
    save_report(tmp_path, report)
    assert read_scores(tmp_path)["dependence"] == report["methods"]["dependence"]["mask"]["score"]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## How faithful explanations are" in card
    assert table(report).splitlines()[-1].split()[0] in card
    (tmp_path / "faithfulness.json").write_text('{"methods": [1]}')
    with pytest.raises(ValueError, match=r"faithfulness\.json: not a report"):
        read_scores(tmp_path)


def test_the_curves_are_drawn() -> None:
    picture = draw_faithfulness(summary(questions(), "val"))
    assert isinstance(picture, Image.Image)
    assert picture.width > 1500
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
