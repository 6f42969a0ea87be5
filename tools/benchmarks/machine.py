"""The machine: what it is, how fast it copies and multiplies."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.timing import seconds
from coattn.features.residency.placement import physical_memory

_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe(device: str) -> dict[str, Any]:
    """Plain values: processor, threads, what of it speeds up bf16, the GPU if it is used, versions."""
    found: dict[str, Any] = {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in _MATRIX_FLAGS if flag in _cpuinfo("flags").split()],
        "memory GB": round(physical_memory() / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found["gpu"] = {"name": gpu.name, "memory GB": round(gpu.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return found


def has_bf16(device: str) -> bool:
    """Whether bf16 is computed by the processor itself and not emulated."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


def synchronise(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def copy_rate(device: str, *, megabytes: int = 256) -> float:
    """GB/s of plain copies from one array to another, counting each byte once; by numpy or torch, which is faster.

    It is the mean of several copies, as what it is compared with is of several batches.
    """
    source = torch.randint(0, 100, (megabytes * 2**20,), dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)

    def by_torch() -> None:
        target.copy_(source)
        synchronise(device)

    by_torch()
    ways = [by_torch] if device == "cuda" else [by_torch, lambda: np.copyto(target.numpy(), source.numpy())]
    return megabytes * 2**20 / min(mean(seconds(way) for _ in range(6)) for way in ways) / 1e9


def upload_rate(*, megabytes: int = 256) -> float:
    """GB/s from page-locked memory to the GPU."""
    source = torch.zeros(megabytes * 2**20, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(source, device="cuda")

    def copy() -> None:
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    copy()
    return megabytes * 2**20 / mean(seconds(copy) for _ in range(6)) / 1e9


def matrix_rate(device: str, dtype: torch.dtype, *, quick: bool = False) -> float:
    """FLOP/s of matrix products, the best of a square one and one of an MCAN layer's shape; random numbers."""
    shapes = [(8192, 8192, 8192), (25_600, 512, 2048)] if device == "cuda" else [(2048,) * 3, (6400, 512, 2048)]
    shapes = [(64, 64, 64)] if quick else shapes
    best = 0.0
    for rows, inner, columns in shapes:
        a = torch.randn(rows, inner, device=device).to(dtype)
        b = torch.randn(inner, columns, device=device).to(dtype)
        repeats = 20 if device == "cuda" else 2

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b, repeats: int = repeats) -> None:
            for _ in range(repeats):
                a @ b
            synchronise(device)

        best = max(best, repeats * 2 * rows * inner * columns / min(seconds(multiply) for _ in range(4)))
    return best


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
