"""The curves of `coattn explain-test`."""

from __future__ import annotations

import numpy as np

from coattn.visualization.faithfulness import draw_faithfulness


def test_a_long_legend_is_continued_on_the_next_line() -> None:
    curves = {"curves": {"insertion": [0.2, 0.9], "deletion": [0.9, 0.2]}}
    entry = {"mask": {"score": 40.0, **curves}}
    report = {"split": "val", "questions": 9, "images": 9, "random": {"mask": curves["curves"]}}
    few, many = (
        draw_faithfulness(report | {"methods": dict.fromkeys(names, entry)})
        for names in (
            ["dependence"],
            ["dependence", "attention", "rollout", "shapley", "surrogate", "other questions'"],
        )
    )
    assert many.height > few.height
    margin = np.asarray(many)[:, -20:]
    assert (margin == margin[0, 0]).all()
