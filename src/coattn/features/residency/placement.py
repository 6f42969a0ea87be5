"""Decide where features are held while a model trains: GPU memory, RAM, or memory-mapped files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

import torch

Residency = Literal["auto", "device", "pinned", "mmap"]

SMALL = 1 << 28  # bytes; a CPU gains milliseconds from a copy of larger features, in steps that take seconds
_LEFT_ON_DEVICE = 0.3  # share of the GPU's memory that stays free for the model and its activations
LEFT_IN_RAM = 0.5  # share of the available RAM that features may take


class Placement(NamedTuple):
    """Bytes of features on the GPU and in RAM. The others stay on the disk, memory-mapped."""

    device: int
    memory: int


def place(mode: Residency, size: int, *, on_cuda: bool, device_budget: int, memory_budget: int) -> Placement:
    """Decide where features are held.

    Args:
        mode: "device" means the GPU, "pinned" RAM from which they go to the GPU through page-locked buffers, and "mmap"
            the disk. "auto" takes the first of these places that they fit in, and on a CPU takes RAM for small features
            only. Features that do not fit stay in the next place. Without a GPU "device" and "pinned" both mean RAM.
        size: bytes of the features.
        on_cuda: the model computes on a GPU.
        device_budget: bytes of GPU memory that features may take.
        memory_budget: bytes of RAM that features may take.

    Raises:
        ValueError: unknown mode.
    """
    if mode not in ("auto", "device", "pinned", "mmap"):
        raise ValueError(f"residency must be auto, device, pinned or mmap, got {mode!r}")
    if mode == "mmap" or (mode == "auto" and not on_cuda and size > min(SMALL, memory_budget)):
        return Placement(0, 0)
    device = min(size, device_budget) if on_cuda and mode != "pinned" else 0
    rest = size - device
    if rest > memory_budget and device:
        return Placement(device, 0)  # the system caches the files of the rest as far as it can
    return Placement(device, min(rest, memory_budget))


def describe_placement(mode: Residency, device: torch.device, size: int, held: Placement, *, int8: bool) -> str:
    """Say where features are held, and why."""
    amounts = {f"on {device}": held.device, "in RAM": held.memory, "memory-mapped": size - sum(held)}
    if held == place(mode, size, on_cuda=device.type == "cuda", device_budget=size, memory_budget=size):
        fits = "they fit" if held.device else "fast enough for a CPU" if size > held.memory else "they are small"
        return f", {max(amounts, key=lambda where: amounts[where])} ({fits if mode == 'auto' else 'as asked'})"
    parts = ", ".join(f"{amount / 1e9:.2f} GB {where}" for where, amount in amounts.items() if amount)
    advice = "" if int8 else " (int8 takes half of float16: extract or convert with --dtype int8)"
    return f": {parts}; no more fits{advice}"


def free_on_device(device: torch.device) -> int:
    """Bytes of GPU memory that features may take. Memory that torch has reserved but not allocated counts as free."""
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(int(free - _LEFT_ON_DEVICE * total), 0)


def available_memory() -> int:
    """Bytes of RAM that are available to programs, within the limit of a container."""
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
    """Bytes of RAM of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
