"""Where the answer was read: the model's own last attention map over the words or regions, the mean of its heads.

Attention shows which vectors were mixed into the answer, not which of them the answer depends on (Jain & Wallace 2019,
arXiv 1902.10186).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coattn.explain.maps import default_map
from coattn.nn.maps import Side


def attention(maps: Mapping[str, np.ndarray], side: Side) -> np.ndarray:
    """The weights (n,) of the default map: its mean over heads and, in a decoder's map, over written words.

    Raises:
        ValueError: the model has no such map.
    """
    name = default_map(maps, side)
    if name not in maps:
        raise ValueError(f"this model has no attention map over the {side}; choose the method dependence")
    return maps[name].mean((0, 1))
