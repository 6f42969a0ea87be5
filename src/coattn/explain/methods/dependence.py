"""Dependence: what each part adds to the answer, next to nothing and next to everything else.

The effect of a part next to nothing is its first marginal contribution, its effect next to everything else the last.
Their mean estimates its Shapley value (Shapley 1953) with the two coalitions that say most. "Left out" alone
(occlusion, Zeiler & Fergus 2014, arXiv 1311.2901) misses evidence that another part repeats; "alone" misses relations.
Up to `EXACT` parts all subsets are affordable, and the Shapley value is computed exactly: it also counts what only some
of the parts say together.
"""

from __future__ import annotations

from math import comb

import numpy as np

from coattn.explain.methods.table import Value

EXACT = 6


def dependence(value: Value, count: int) -> np.ndarray:
    """Probability (n,) that each of `count` parts adds: its Shapley value, or the mean of its extreme contributions."""
    if count <= EXACT:
        return shapley_values(value, count)
    one = np.eye(count, dtype=bool)
    values = value(np.concatenate((one, ~one, np.zeros((1, count), bool), np.ones((1, count), bool))))
    alone, left_out, nothing, everything = np.split(values, [count, 2 * count, 2 * count + 1])
    return ((alone - nothing) + (everything - left_out)) / 2


def shapley_values(value: Value, count: int) -> np.ndarray:
    """The exact Shapley values (n,) of `count` parts, from all 2^n subsets."""
    kept = (np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1
    size = kept.sum(1, keepdims=True)
    # A part's contribution to the s parts before it counts 1 / (n C(n - 1, s)): every order of the parts is as likely.
    weight = np.array([*(1 / (count * comb(count - 1, before)) for before in range(count)), 0.0])
    return value(kept) @ np.where(kept, weight[size - 1], -weight[size])
