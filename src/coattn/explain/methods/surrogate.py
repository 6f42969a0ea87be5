"""A linear surrogate (LIME, Ribeiro et al. 2016, arXiv 1602.04938), fitted on random halves of the parts."""

from __future__ import annotations

import numpy as np

from coattn.explain.methods.table import Value

NUM_MASKS = 64
RIDGE = 1.0


def surrogate(value: Value, count: int) -> np.ndarray:
    """Coefficients (n,) of a linear model of the probability in the presence of each of `count` parts."""
    draws = np.random.default_rng(0)
    half = draws.random((NUM_MASKS // 2, count)) < 0.5
    kept = np.concatenate((half, ~half))  # every part is present in exactly half of the masks
    presence, values = kept - 0.5, value(kept)
    return np.linalg.solve(presence.T @ presence + RIDGE * np.eye(count), presence.T @ (values - values.mean()))
