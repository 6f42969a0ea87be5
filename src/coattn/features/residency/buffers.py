"""Memory for batches that is used again and again: fresh memory costs as much as filling it."""

from __future__ import annotations

import math
import weakref
from functools import partial

import numpy as np
import torch
from torch import Tensor

_KEPT = 4  # buffers at rest; in use there may be any number
_STEP = 1 << 21  # bytes, a huge page


class Buffers:
    """Gives out tensors in memory that was given out before, once nobody holds the tensor or a view of it any more.

    So a batch may be kept for as long as one likes, by a callback say: it keeps its memory, and another is made for the
    next batch.
    """

    def __init__(self) -> None:
        self._at_rest: list[np.ndarray] = []
        self._lent: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with whatever was there before."""
        needed = math.prod(shape) * dtype.itemsize
        buffer = self._taken(needed)
        lent = buffer[:needed]
        # The tensor's storage holds `lent`, and nobody else does: when it dies, all views of it have died.
        self._lent[id(lent)] = weakref.ref(lent, partial(self._take_back, buffer, id(lent)))
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _taken(self, needed: int) -> np.ndarray:
        """A buffer at rest that is large enough, or a new one instead of one that is too small.

        That which came back last is taken first: parts of it may still be in the processor's cache.
        """
        for place in reversed(range(len(self._at_rest))):
            if self._at_rest[place].nbytes >= needed:
                return self._at_rest.pop(place)
        if self._at_rest:
            self._at_rest.pop(0)
        return np.empty(-(-needed // _STEP) * _STEP, np.uint8)

    def _take_back(self, buffer: np.ndarray, number: int, _: object) -> None:
        del self._lent[number]
        if len(self._at_rest) < _KEPT:
            self._at_rest.append(buffer)
