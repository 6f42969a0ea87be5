"""Dependence: each part is shown alone, and each part is left out; both effects are added.

The effect of a part next to nothing is its first marginal contribution, its effect next to everything else the last;
twice their mean estimates its Shapley value twice over with the two coalitions that say most. "Left out" alone
(occlusion, Zeiler & Fergus 2014, arXiv 1311.2901) misses evidence that another part repeats; "alone" misses relations.
"""

from __future__ import annotations

import numpy as np

from coattn.explain.methods.table import Value


def dependence(value: Value, count: int) -> np.ndarray:
    """Log-odds (n,) that each of `count` parts adds to nothing, plus those that the whole loses without it."""
    one = np.eye(count, dtype=bool)
    values = value(np.concatenate((one, ~one, np.zeros((1, count), bool), np.ones((1, count), bool))))
    alone, left_out, nothing, everything = np.split(values, [count, 2 * count, 2 * count + 1])
    return (alone - nothing) + (everything - left_out)
