from __future__ import annotations

import numpy as np
import pytest

from coattn.visualization.color import colors, heat_map, scale_of, strengths


def test_strength_is_relative_to_the_uniform_share() -> None:
    shares = np.array([0.1, 0.25, 0.65])
    scale = scale_of(shares, 0.25)
    assert scale == pytest.approx(3)  # 0.65 is 2.6 times the uniform share: not painted as the strongest
    np.testing.assert_allclose(strengths(shares, 0.25, scale), [0, 0, 0.8])
    assert scale_of(np.array([0.9, 0.1]), 0.1) == pytest.approx(9)


def test_weak_effects_are_not_painted_as_strong() -> None:
    assert scale_of(np.array([0.01, -0.02]), None) == 0.1
    np.testing.assert_allclose(strengths(np.array([2.0, -1.0]), None, 2.0), [1, -0.5])


def test_equal_regions_look_equal_whatever_their_size() -> None:
    boxes = np.array([[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4], [0.1, 0.3, 0.9, 0.5]])
    np.testing.assert_allclose(heat_map(boxes, np.full(3, 0.7), 40, 60), 0.7, atol=1e-12)
    assert np.abs(heat_map(boxes[:0], np.zeros(0), 40, 60)).max() == 0


def test_heat_lies_in_its_box() -> None:
    halves = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    heat = heat_map(halves, np.array([-1.0, 1.0]), 40, 40)
    assert heat[:, 0].max() < -0.9
    assert heat[:, -1].min() > 0.9


def test_colors_of_for_and_against() -> None:
    against, neutral, strong = colors(np.array([-1.0, 0.0, 1.0]))
    assert against[2] > against[0]
    assert strong[0] > strong[2]
    assert np.ptp(neutral) < 0.02
