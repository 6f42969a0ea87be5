"""Where the features of a data set live while they are read again and again: on the GPU, in RAM, or on the disk.

Letters: B images, R regions, D width of a feature row, N rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from coattn.features.residency.buffers import Buffers
from coattn.features.residency.gather import MappedRows

Residency = Literal["auto", "device", "pinned", "mmap"]

_LOAD_BYTES = 1 << 26  # read or uploaded at once
_SMALL = 1 << 30  # bytes; of larger ones a copy in RAM saves a CPU ms of steps that take seconds
_LEFT_ON_DEVICE = 0.3  # of the GPU's memory, for the model and its activations
_LEFT_IN_RAM = 0.5  # of what is available


class Placement(NamedTuple):
    """So many bytes of features go to the GPU and so many to RAM; the others stay on the disk, memory-mapped."""

    device: int
    memory: int


def place(mode: Residency, size: int, *, on_cuda: bool, device_budget: int, memory_budget: int) -> Placement:
    """Decide where features live.

    Args:
        mode: "device": on the GPU; "pinned": in RAM, going to the GPU through page-locked buffers; "mmap": on the disk;
            "auto": the first of these places that they fit in, and on a CPU RAM for small features only. What does not
            fit stays in the next place. Without a GPU "device" and "pinned" are both RAM.
        size: bytes of the features.
        on_cuda: the model computes on a GPU.
        device_budget: bytes of the GPU's memory that features may take.
        memory_budget: likewise of RAM.

    Raises:
        ValueError: unknown mode.
    """
    if mode not in ("auto", "device", "pinned", "mmap"):
        raise ValueError(f"residency must be auto, device, pinned or mmap, got {mode!r}")
    if mode == "mmap" or (mode == "auto" and not on_cuda and size > min(_SMALL, memory_budget)):
        return Placement(0, 0)
    device = min(size, device_budget) if on_cuda and mode != "pinned" else 0
    rest = size - device
    if rest > memory_budget and device:
        return Placement(device, 0)  # what the GPU does not hold is in the system's cache of files, if it can be
    return Placement(device, min(rest, memory_budget))


class HeldRows:
    """The rows of some images in the memory of one device, as stored.

    Attributes:
        starts: (M,) int64, where the rows of each image of the store begin; -1 for those that are not held.
        features: (N + 1, D) as stored, zeros at the end.
        scale: (N + 1, 1) float32 of int8 features, else None.

    Args:
        store: where they come from.
        images: (K,) their positions.
        device: where to.
        progress: show a bar with rate and time left, if there is much to read.
    """

    def __init__(self, store: MappedRows, images: np.ndarray, device: torch.device, *, progress: bool = False) -> None:
        images = np.sort(images)  # files are read from front to back
        lengths = store.lengths[images]
        total = int(lengths.sum())
        self.starts = np.full(len(store), -1)
        self.starts[images] = np.cumsum(lengths) - lengths
        self.features = _empty_rows(total + 1, store.dim, store.stored_dtype, device)
        self.features[-1] = 0
        rows = np.concatenate([store.rows(images), [-1]])
        self.scale: Tensor | None = None
        if store.dtype == "int8":
            self.scale = torch.from_numpy(store.column("scale")[rows, None].astype(np.float32)).to(device)
        size = total * store.row_bytes
        with tqdm(
            total=size,
            unit="B",
            unit_scale=True,
            desc=f"features to {'RAM' if device.type == 'cpu' else device}",
            disable=not progress or size < _SMALL or None,
        ) as bar:
            for chunk, ahead in _chunks(store, images):
                store.expect(ahead)
                self._load(store, chunk)
                bar.update(int(store.lengths[chunk].sum()) * store.row_bytes)
        store.unmap()

    def _load(self, store: MappedRows, images: np.ndarray) -> None:
        lengths = store.lengths[images]
        first, count = int(self.starts[images[0]]), int(lengths.sum())
        target = self.features[first : first + count]
        if target.device.type == "cpu":
            store.copy_rows(images, target.numpy(), self.starts[images] - first)
            return
        # Torch lends a page-locked buffer again only when copies out of it are done.
        staging = torch.empty_like(target, device="cpu", pin_memory=True)
        store.copy_rows(images, staging.numpy(), self.starts[images] - first)
        target.copy_(staging, non_blocking=True)

    def holds(self, images: np.ndarray) -> np.ndarray:
        """(B,) bool."""
        return self.starts[images] >= 0

    def gather(self, images: np.ndarray, lengths: np.ndarray, *, out: Tensor | None = None) -> Tensor:
        """Features (B, R, D) of images with so many rows each; zeros at padding, and where an image is not held."""
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


class Features:
    """Padded features of batches, from wherever they live, on the device that computes.

    Args:
        store: all images.
        device: where batches go. Only a GPU counts; for others they stay in RAM, to be moved on.
        on_device: rows that the GPU holds.
        in_memory: rows held in RAM.
    """

    def __init__(
        self,
        store: MappedRows,
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
        """Whether batches for a GPU are made by the CPU, so that it pays to do so ahead."""
        return self.device.type == "cuda" and (self.on_device is None or bool((self.on_device.starts < 0).any()))

    def gather(self, images: np.ndarray) -> Tensor:
        """Features (B, R, D) of images (B,) of the store, R the most regions of one (at least 1), zeros at padding.

        As stored, int8 as float32. On a GPU nothing waits for it. The memory is the caller's for as long as it is held.
        """
        if self.on_device is None:
            return self._from_host(images)
        features = self.on_device.gather(images, self.store.lengths[images])
        missing = np.flatnonzero(~self.on_device.holds(images))
        if len(missing):
            rest = self._from_host(images[missing])
            features[:, : rest.shape[1]].index_copy_(0, moved(torch.from_numpy(missing), self.device), rest)
        return features

    def expect(self, images: np.ndarray) -> None:
        """Let the system begin to read images of a batch to come, where they may still have to come from the disk."""
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
        distinct, places = np.unique(images, return_inverse=True)  # each goes over the bus once
        features = moved(self._on_host(distinct), self.device)
        return features.index_select(0, moved(torch.from_numpy(places), self.device))

    def _on_host(self, images: np.ndarray) -> Tensor:
        lengths = self.store.lengths[images]
        shape = (len(images), max(int(lengths.max(initial=0)), 1), self.store.dim)
        out = self._empty(shape)
        if self.in_memory is None:
            self.store.copy_padded(images, out.numpy())
            return out
        self.in_memory.gather(images, lengths, out=out)
        missing = np.flatnonzero(~self.in_memory.holds(images))
        if len(missing):
            self.store.copy_rows(images[missing], out.view(-1, shape[2]).numpy(), missing * shape[1])
        return out

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        dtype = torch_dtype(self.store.gathered_dtype)
        if self.device.type == "cpu":
            return self._buffers.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, pin_memory=True)  # from torch's own ring of such buffers


def open_features(
    store: MappedRows,
    images: np.ndarray,
    mode: Residency = "auto",
    device: torch.device | str = "cpu",
    *,
    budget: float | None = None,
    num_ranks: int = 1,
    progress: bool = False,
) -> tuple[Features, str]:
    """Bring the features of images to where they are to live.

    Args:
        store: the images.
        images: (U,) the image of each use that is to be made of them, so that those used most go first.
        mode: see `place`.
        device: where batches are computed.
        budget: most bytes of features on the GPU, or without one in RAM; by what is free if not given.
        num_ranks: processes of this machine that do the same, each with a device of its own.
        progress: show a bar while features are read.

    Returns:
        What batches are gathered from; and one line that says where the features are and why.

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
        memory_budget=int(available_memory() * _LEFT_IN_RAM / num_ranks if budget is None or on_cuda else budget),
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
    return features, said + _description(mode, device, int(sizes.sum()), amounts, int8=store.dtype == "int8")


def _description(mode: Residency, device: torch.device, size: int, held: Placement, *, int8: bool) -> str:
    """Where features are, by what is held of them, and why."""
    amounts = {f"on {device}": held.device, "in RAM": held.memory, "memory-mapped": size - sum(held)}
    if held == place(mode, size, on_cuda=device.type == "cuda", device_budget=size, memory_budget=size):
        fits = "they fit" if held.device else "fast enough for a CPU" if size > held.memory else "they are small"
        return f", {max(amounts, key=lambda where: amounts[where])} ({fits if mode == 'auto' else 'as asked'})"
    parts = ", ".join(f"{amount / 1e9:.2f} GB {where}" for where, amount in amounts.items() if amount)
    advice = "" if int8 else " (int8 takes half of float16: extract or convert with --dtype int8)"
    return f": {parts}; no more fits{advice}"


def free_on_device(device: torch.device) -> int:
    """Bytes of a GPU's memory that features may take; what torch keeps for tensors to come is free."""
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(int(free - _LEFT_ON_DEVICE * total), 0)


def available_memory() -> int:
    """Bytes of RAM that programs may still take; of a container, what its limit leaves."""
    available = physical_memory() // 2
    if (system := Path("/proc/meminfo")).exists():
        fields = dict(line.split(":", 1) for line in system.read_text().splitlines())
        available = 1024 * int(fields["MemAvailable"].split()[0])
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        used = int((group / "memory.current").read_text()) - int(cached)
        available = min(available, max(int(limit) - used, 0))
    return available


def physical_memory() -> int:
    """Bytes of RAM that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, which nothing waits for."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """The type of torch with the same bits."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _empty_rows(count: int, dim: int, dtype: np.dtype, device: torch.device) -> Tensor:
    """(count, dim). In RAM numpy asks for huge pages, from which rows are gathered twice as fast."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty((count, dim), dtype))
    return torch.empty(count, dim, dtype=torch_dtype(dtype), device=device)


def _chunks(store: MappedRows, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images in portions to be read at once, each with the one after it."""
    ends = np.cumsum(store.lengths[images]) * store.row_bytes
    chunks = np.split(images, np.flatnonzero(np.diff(ends // _LOAD_BYTES)) + 1)
    yield from zip(chunks, [*chunks[1:], images[:0]], strict=True)
