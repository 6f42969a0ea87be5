"""Reusable memory for batches: allocating fresh memory costs as much as filling it."""

from __future__ import annotations

import math
import weakref
from functools import partial

import numpy as np
import torch
from torch import Tensor

_KEPT = 4  # unused buffers; any number may be in use
_STEP = 1 << 21  # bytes, a huge page


class Buffers:
    """Allocates tensors in memory of earlier tensors, once no tensor or view uses that memory any more.

    A batch may be kept for any time, for example by a callback: it keeps its memory, and the next batch gets another.
    """

    def __init__(self) -> None:
        self._at_rest: list[np.ndarray] = []
        self._lent: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialized tensor."""
        needed = math.prod(shape) * dtype.itemsize
        buffer = self._taken(needed)
        lent = buffer[:needed]
        # Only the tensor's storage holds `lent`: when `lent` is deleted, no view of the tensor exists any more.
        self._lent[id(lent)] = weakref.ref(lent, partial(self._take_back, buffer, id(lent)))
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _taken(self, needed: int) -> np.ndarray:
        """An unused buffer that is large enough, or a new one in place of one that is too small.

        The buffer that was returned last is taken first: parts of it may still be in the processor's cache.
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
