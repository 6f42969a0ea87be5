"""The description of a method of explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from coattn.nn.maps import Side

# The probability (N,) of the answer where only some of n parts are present, (N, n) bool.
Value = Callable[[np.ndarray], np.ndarray]


class Method(NamedTuple):
    """A way to say which words and regions matter.

    Attributes:
        title: a phrase for people.
        passes: cost in passes of the model for n parts, as a formula.
        weakness: its weakness, a sentence.
        source: its publication.
        from_value: computes (n,) signed values from answers with parts removed; or None.
        from_maps: computes (n,) shares from the attention maps and the side, "question" or "regions"; or None.
    """

    title: str
    passes: str
    weakness: str
    source: str
    from_value: Callable[[Value, int], np.ndarray] | None = None
    from_maps: Callable[[Mapping[str, np.ndarray], Side], np.ndarray] | None = None

    @property
    def signed(self) -> bool:
        """Whether its values speak for (positive) and against (negative) the answer."""
        return self.from_value is not None
