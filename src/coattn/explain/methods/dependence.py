"""Dependence: what each part adds to the answer, next to nothing and next to everything else.

The effect of a part next to nothing is its first marginal contribution, its effect next to everything else the last.
Their mean estimates its Shapley value (Shapley 1953) with the two coalitions that say most. "Left out" alone
(occlusion, Zeiler & Fergus 2014, arXiv 1311.2901) misses evidence that another part repeats; "alone" misses relations.
Up to `EXACT` parts all subsets are affordable, and every order of the parts is followed: a random-order value (Weber
1988), which also counts what only some of the parts say together.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from coattn.explain.methods.table import Value

EXACT = 6
SHARPNESS = 14.0  # of the weights of the orders, chosen on validation questions of Sort-of-CLEVR; 0 for Shapley values


def dependence(value: Value, count: int) -> np.ndarray:
    """Probability (n,) that each of `count` parts adds: over all orders, or the mean of its extreme contributions."""
    if count <= EXACT:
        return random_order_values(value, count)
    one = np.eye(count, dtype=bool)
    values = value(np.concatenate((one, ~one, np.zeros((1, count), bool), np.ones((1, count), bool))))
    alone, left_out, nothing, everything = np.split(values, [count, 2 * count, 2 * count + 1])
    return ((alone - nothing) + (everything - left_out)) / 2


def random_order_values(value: Value, count: int, sharpness: float = SHARPNESS) -> np.ndarray:
    """The mean contributions (n,) of `count` parts over all their orders, from all 2^n subsets.

    A part contributes when it is added to those before it, and when it is removed after them. The weight of an order
    grows with the area by which adding its parts is above removing them: orders that begin with the parts that decide
    the answer count more. As with Shapley values, the sum is the probability with all parts minus that with none,
    equal parts have equal values, and a part without effect has 0.
    """
    kept = (np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1
    probability = value(kept)
    orders = np.array(list(permutations(range(count))))  # (n!, n)
    # The number of a subset has a bit for each of its parts; first[i, k] are the first k parts of order i.
    first = np.cumsum(1 << orders, axis=1)
    first = np.concatenate((np.zeros_like(first[:, :1]), first), 1)  # (n!, n + 1)
    added, removed = probability[first], probability[2**count - 1 - first]
    area = (added - removed).mean(1)
    weight = np.exp(sharpness * (area - area.max()))
    steps = (np.diff(added, axis=1) - np.diff(removed, axis=1)) / 2
    return np.bincount(orders.ravel(), (weight[:, None] / weight.sum() * steps).ravel(), count)
