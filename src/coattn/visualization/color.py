"""Colors of values on pictures: how strong a value looks, and which color that is."""

from __future__ import annotations

import numpy as np

INK, MUTED, FAINT, BLUE, PALE_BLUE = "#1d2733", "#66727f", "#e9edf1", "#2b6cb0", "#a9c3dd"
AMBER, PALE_AMBER = "#8a5a00", "#fff3d6"

# From strongly against, over neutral, to strongly for. Orange and blue are told apart with every kind of color vision.
_STEPS = np.array([-1.0, -0.5, -0.15, 0.0, 0.15, 0.5, 0.8, 1.0])
_COLORS = ("#12468a", "#5b93cf", "#c9dcf0", "#f4f6f8", "#fde3b4", "#f98e2b", "#e0431f", "#9c1127")
_RGB = np.array([[int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)] for color in _COLORS])

SMALLEST_SCALE = 0.1  # of probability: weaker effects are not painted as if they were strong


def scale_of(values: np.ndarray, uniform: np.ndarray | float | None) -> float:
    """The value of the strongest color: at least three times the uniform share, or `SMALLEST_SCALE`.

    Args:
        values: any shape.
        uniform: the share that each value has in a uniform map; None for signed values.
    """
    if uniform is None:
        return max(float(np.abs(values).max(initial=0.0)), SMALLEST_SCALE)
    return max(float((values / np.maximum(uniform, 1e-12)).max(initial=0.0)), 3.0)


def strengths(values: np.ndarray, uniform: np.ndarray | float | None, scale: float) -> np.ndarray:
    """Values as strengths in [-1, 1]; 0, the neutral color, is no effect, or the uniform share and less."""
    if uniform is None:
        return np.clip(values / scale, -1, 1)
    return np.clip((values / np.maximum(uniform, 1e-12) - 1) / (scale - 1), 0, 1)


def colors(strength: np.ndarray) -> np.ndarray:
    """The color (..., 3), in [0, 1], of each strength in [-1, 1]."""
    return np.stack([np.interp(strength, _STEPS, _RGB[:, channel]) for channel in range(3)], -1)


def heat_map(boxes: np.ndarray, strength: np.ndarray, height: int, width: int) -> np.ndarray:
    """Strengths (R,) of regions as a picture (height, width): 0 where no region is.

    A place in several boxes shows their mean, in which a box counts by one over its area, so that equal regions look
    equal. Smoothed by a quarter of the middle box, so that a grid shows no seams.
    """
    heat, cover = np.zeros((height, width)), np.zeros((height, width))
    pixels = np.clip(boxes, 0, 1) * (width, height, width, height)
    corners = np.concatenate((np.floor(pixels[:, :2]), np.ceil(pixels[:, 2:])), 1).astype(int)  # (R, 4)
    for (x1, y1, x2, y2), value in zip(corners.tolist(), strength.tolist(), strict=True):
        area = max((x2 - x1) * (y2 - y1), 1)
        heat[y1:y2, x1:x2] += value / area
        cover[y1:y2, x1:x2] += 1 / area
    heat = np.divide(heat, cover, out=heat, where=cover > 0)
    if not len(corners):
        return heat
    middle_width, middle_height = np.median(corners[:, 2:] - corners[:, :2], 0)
    return _blur(height, middle_height / 4) @ heat @ _blur(width, middle_width / 4).T


def _blur(size: int, sigma: float) -> np.ndarray:
    """Gaussian smoothing of a line of `size` values, as a matrix whose rows sum to 1."""
    steps = np.arange(size)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / max(sigma, 0.5)) ** 2)
    return kernel / kernel.sum(1, keepdims=True)
