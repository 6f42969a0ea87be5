"""Copies of feature rows in the memory of one device.

Letters: B images, R regions, D width of a feature row, N rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from coattn._internal.progress import progress as show_progress
from coattn.features.residency.placement import SMALL
from coattn.features.store.mapped import MappedStore

_LOAD_BYTES = 1 << 26  # read or uploaded at once


class HeldRows:
    """The rows of some images in the memory of one device, as stored.

    Attributes:
        starts: (M,) int64, first row of each image of the store; -1 for images that are not held.
        features: (N + 1, D) as stored; the last row is zeros.
        scale: (N + 1, 1) float32 of int8 features, else None.

    Args:
        store: the feature store.
        images: (K,) positions of the images to hold.
        device: the device that holds them.
        progress: show progress on stderr if more than 256 MB are read.
    """

    def __init__(self, store: MappedStore, images: np.ndarray, device: torch.device, *, progress: bool = False) -> None:
        images = np.sort(images)  # files are read from front to back
        lengths = store.lengths[images]
        total = int(lengths.sum())
        self.starts = np.full(len(store), -1)
        self.starts[images] = np.cumsum(lengths) - lengths
        self.features = _empty_rows(total + 1, store.dim, store.stored_dtype, device)
        self.features[-1] = 0
        self.scale: Tensor | None = None
        if store.dtype == "int8":
            scale = np.zeros((total + 1, 1), np.float32)
            store.copy_column("scale", images, scale[:, 0], self.starts[images])
            self.scale = torch.from_numpy(scale).to(device)
        size = total * store.row_bytes
        what = f"features to {'RAM' if device.type == 'cpu' else device}"
        with show_progress(what, size, unit="B", shown=progress and size >= SMALL) as advance:
            for chunk, ahead in _chunks(store, images):
                store.expect(ahead)
                self._load(store, chunk)
                advance(int(store.lengths[chunk].sum()) * store.row_bytes)
        store.unmap()

    def _load(self, store: MappedStore, images: np.ndarray) -> None:
        lengths = store.lengths[images]
        first, count = int(self.starts[images[0]]), int(lengths.sum())
        target = self.features[first : first + count]
        if target.device.type == "cpu":
            store.copy_rows(images, target.numpy(), self.starts[images] - first)
            return
        # Torch reuses a page-locked buffer only when copies from it are finished.
        staging = torch.empty_like(target, device="cpu", pin_memory=True)
        store.copy_rows(images, staging.numpy(), self.starts[images] - first)
        target.copy_(staging, non_blocking=True)

    def holds(self, images: np.ndarray) -> np.ndarray:
        """Whether images (B,) are held: (B,) bool."""
        return self.starts[images] >= 0

    def batch(self, images: np.ndarray, lengths: np.ndarray, *, out: Tensor | None = None) -> Tensor:
        """Features (B, R, D) of images with `lengths` rows; zeros for padding and for images that are not held."""
        places = np.arange(max(int(lengths.max(initial=0)), 1))
        held = (places < lengths[:, None]) & self.holds(images)[:, None]
        rows = np.where(held, self.starts[images][:, None] + places, len(self.features) - 1)
        index = moved(torch.from_numpy(rows), self.features.device)
        shape = (*rows.shape, self.features.shape[1])
        if self.scale is None:
            flat = None if out is None else out.view(-1, shape[2])
            return torch.index_select(self.features, 0, index.view(-1), out=flat).view(shape)
        stored = self.features.index_select(0, index.view(-1)).view(shape)
        return torch.mul(stored, self.scale[index], out=out)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to `device` without waiting for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """The type of torch that corresponds to a type of numpy."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _empty_rows(count: int, dim: int, dtype: np.dtype, device: torch.device) -> Tensor:
    """Uninitialized rows (count, dim). In RAM numpy asks for huge pages, from which rows are read twice as fast."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty((count, dim), dtype))
    return torch.empty(count, dim, dtype=torch_dtype(dtype), device=device)


def _chunks(store: MappedStore, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images in portions of 64 MB, each with the portion that follows it."""
    ends = np.cumsum(store.lengths[images]) * store.row_bytes
    chunks = np.split(images, np.flatnonzero(np.diff(ends // _LOAD_BYTES)) + 1)
    yield from zip(chunks, [*chunks[1:], images[:0]], strict=True)
