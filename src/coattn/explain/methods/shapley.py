"""Shapley values by sampling orders (Castro et al. 2009, 10.1016/j.cor.2008.04.004), each with its reverse.

Each sampled order adds the parts one by one; a part's value is the mean of what it added. An order and its reverse are
used together (antithetic sampling, Mitchell et al. 2022, arXiv 2104.12199), which lowers the variance.
"""

from __future__ import annotations

import numpy as np

from coattn.explain.methods.table import Value

NUM_ORDERS = 8


def shapley(value: Value, count: int) -> np.ndarray:
    """Probability (n,) that each of `count` parts adds on average. The sum is the probability with
    all parts minus that with none.
    """
    draws = np.random.default_rng(0)
    orders = [draws.permutation(count) for _ in range(NUM_ORDERS // 2)]
    orders += [order[::-1] for order in orders]
    # kept[i, s] are the parts present after step s + 1 of order i; the last step is everything, for all orders alike.
    places = np.argsort(orders, axis=1)
    kept = places[:, None, :] <= np.arange(count - 1)[None, :, None]
    ends = np.concatenate((np.zeros((1, count), bool), np.ones((1, count), bool)))
    values = value(np.concatenate((ends, kept.reshape(-1, count))))
    steps = np.empty((NUM_ORDERS, count + 1))
    steps[:, 0], steps[:, -1] = values[0], values[1]
    steps[:, 1:-1] = values[2:].reshape(NUM_ORDERS, count - 1)
    return np.take_along_axis(np.diff(steps, axis=1), places, 1).mean(0)
