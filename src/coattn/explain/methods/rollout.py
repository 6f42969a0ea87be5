"""Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928), across words and regions.

Every map of a layer moves information from the parts that are attended to the part that attends; a residual keeps half.
Followed from the last map back to the inputs, the product of these steps says how much of each input reached the
answer. Deliberate difference: the original knows one sequence, here the words and regions form one joint sequence, the
maps of a layer act one after the other, and words and regions are each divided by their sum, as an attention map is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coattn.explain.methods.attention import attention
from coattn.nn.maps import Side, parse


def rollout(maps: Mapping[str, np.ndarray], side: Side) -> np.ndarray:
    """The share (n,) of each word, or of each region, in what the last map reads; the shares sum to 1.

    Raises:
        ValueError: the model has no map over regions to start from.
    """
    start = {side: attention(maps, side) for side in ("regions", "question") if _has(maps, side)}
    if "regions" not in start:
        raise ValueError("this model has no attention map over the regions; choose the method dependence")
    # `reached[who]` (n, T + R) holds the share of each input in each vector of `who`.
    lengths = {"question": _length(maps, "question"), "regions": len(start["regions"])}
    inputs = np.eye(sum(lengths.values()))
    reached = {"question": inputs[: lengths["question"]], "regions": inputs[lengths["question"] :]}
    for name, weights in maps.items():
        _, who, whom = parse(name)
        if who in ("question", "regions") and weights.shape[1:] == (lengths[who], lengths[whom]):
            reached[who] = 0.5 * reached[who] + 0.5 * weights.mean(0) @ reached[whom]
    total = sum(weights @ reached[who] for who, weights in start.items()) / len(start)
    words, regions = np.split(total, [lengths["question"]])
    shares = words if side == "question" else regions
    return shares / (shares.sum() or 1.0)


def _has(maps: Mapping[str, np.ndarray], side: str) -> bool:
    return any(parse(name).rows in (None, "answer") and parse(name).columns == side for name in maps)


def _length(maps: Mapping[str, np.ndarray], side: str) -> int:
    """The number of words or regions, from any map that has one for each."""
    for name, weights in maps.items():
        for kind, length in zip(parse(name)[1:], weights.shape[1:], strict=True):
            if kind == side:
                return length
    return 0
