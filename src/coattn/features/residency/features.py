"""Padded features of batches, read from wherever they are held.

Letters: B images, R regions, D width of a feature row, N rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coattn.features.residency.buffers import Buffers
from coattn.features.residency.held import HeldRows, moved, torch_dtype
from coattn.features.residency.placement import (
    LEFT_IN_RAM,
    Placement,
    Residency,
    available_memory,
    describe_placement,
    free_on_device,
    physical_memory,
    place,
)
from coattn.features.store.mapped import MappedStore


class Features:
    """Padded features of batches on the device that computes, from wherever they are held.

    Args:
        store: all images.
        device: device of the batches. Only a GPU counts; for other devices batches stay in RAM, to be moved later.
        on_device: rows held on the GPU.
        in_memory: rows held in RAM.
    """

    def __init__(
        self,
        store: MappedStore,
        device: torch.device | str = "cpu",
        *,
        on_device: HeldRows | None = None,
        in_memory: HeldRows | None = None,
    ) -> None:
        self.store, self.on_device, self.in_memory = store, on_device, in_memory
        device = torch.device(device)
        self.device = device if device.type == "cuda" else torch.device("cpu")
        self._buffers = Buffers()
        self._expected = np.zeros(len(store), bool)
        self._cannot_stay = int(store.lengths.sum()) * store.row_bytes > physical_memory()

    @property
    def reads_host(self) -> bool:
        """Whether the CPU makes batches for a GPU, so that making them ahead saves time."""
        return self.device.type == "cuda" and (self.on_device is None or bool((self.on_device.starts < 0).any()))

    def batch(self, images: np.ndarray) -> Tensor:
        """Features (B, R, D) of images (B,) of the store, padded with zeros to R, the most regions of one (at least 1).

        They have the type of the store, int8 as float32. On a GPU the call does not wait for copies. The memory is not
        reused while the tensor or a view of it exists.
        """
        if self.on_device is None:
            return self._from_host(images)
        features = self.on_device.batch(images, self.store.lengths[images])
        missing = np.flatnonzero(~self.on_device.holds(images))
        if len(missing):
            rest = self._from_host(images[missing])
            features[:, : rest.shape[1]].index_copy_(0, moved(torch.from_numpy(missing), self.device), rest)
        return features

    def expect(self, images: np.ndarray) -> None:
        """Ask the system to read the images of a coming batch ahead, unless they are in memory already."""
        for held in (self.on_device, self.in_memory):
            images = images if held is None else images[~held.holds(images)]
        if not self._cannot_stay:
            images = images[~self._expected[images]]
            self._expected[images] = True
        if len(images):
            self.store.expect(images)

    def _from_host(self, images: np.ndarray) -> Tensor:
        if self.device.type == "cpu":
            return self._on_host(images)
        distinct, places = np.unique(images, return_inverse=True)  # copy each image to the GPU once
        features = moved(self._on_host(distinct), self.device)
        return features.index_select(0, moved(torch.from_numpy(places), self.device))

    def _on_host(self, images: np.ndarray) -> Tensor:
        lengths = self.store.lengths[images]
        shape = (len(images), max(int(lengths.max(initial=0)), 1), self.store.dim)
        out = self._empty(shape)
        if self.in_memory is None:
            self.store.copy_padded(images, out.numpy())
            return out
        self.in_memory.batch(images, lengths, out=out)
        missing = np.flatnonzero(~self.in_memory.holds(images))
        if len(missing):
            self.store.copy_rows(images[missing], out.view(-1, shape[2]).numpy(), missing * shape[1])
        return out

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        dtype = torch_dtype(self.store.read_dtype)
        if self.device.type == "cpu":
            return self._buffers.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, pin_memory=True)  # torch caches page-locked memory


def open_features(
    store: MappedStore,
    images: np.ndarray,
    mode: Residency = "auto",
    device: torch.device | str = "cpu",
    *,
    budget: float | None = None,
    num_ranks: int = 1,
    progress: bool = False,
) -> tuple[Features, str]:
    """Load the features of images into the places that hold them.

    Args:
        store: the feature store.
        images: (U,) the image of each use in an epoch. Images with most uses get the fastest place.
        mode: see `place`.
        device: device that computes.
        budget: largest number of bytes of features on the GPU, or in RAM without a GPU; by default what is free.
        num_ranks: processes on this machine that do the same, each with its device.
        progress: show progress while features are read.

    Returns:
        The source of batches, and one line that says where the features are held and why.

    Raises:
        ValueError: unknown mode, or a negative budget.
    """
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    if budget is not None and budget < 0:
        raise ValueError(f"the budget of features must not be negative, got {budget}")
    used, uses = np.unique(images, return_counts=True)
    sizes = store.lengths[used] * store.row_bytes
    placement = place(
        mode,
        int(sizes.sum()),
        on_cuda=on_cuda,
        device_budget=int(free_on_device(device) if budget is None else budget) if on_cuda else 0,
        memory_budget=int(available_memory() * LEFT_IN_RAM / num_ranks if budget is None or on_cuda else budget),
    )
    order = np.argsort(-uses, kind="stable")
    ends = np.cumsum(sizes[order])
    on_device = order[ends <= placement.device]
    in_memory = order[(ends > placement.device) & (ends <= sum(placement))]
    held = [
        HeldRows(store, used[part], where, progress=progress) if len(part) else None
        for part, where in ((on_device, device), (in_memory, torch.device("cpu")))
    ]
    features = Features(store, device, on_device=held[0], in_memory=held[1])
    amounts = Placement(int(sizes[on_device].sum()), int(sizes[in_memory].sum()))
    said = f"features: {sizes.sum() / 1e9:.2f} GB of {len(used)} images"
    return features, said + describe_placement(mode, device, int(sizes.sum()), amounts, int8=store.dtype == "int8")
