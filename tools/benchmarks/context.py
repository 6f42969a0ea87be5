"""The device, scale and folder that every part of the benchmark receives."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.scale import CPU, CUDA, QUICK, Scale

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed"}  # what Lightning's Trainer calls them
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
Row = dict[str, Any]


class Context:
    """Device, scale, and the folder for generated data.

    Args:
        device: "cpu" or "cuda".
        quick: tiny sizes, to check that everything runs.
        folder: for the synthetic data.
        against: the root of another build of this repository, to compare with.
    """

    def __init__(self, device: str, *, quick: bool, folder: Path, against: Path | None = None) -> None:
        self.device, self.quick, self.folder, self.against = device, quick, folder, against
        self.scale: Scale = QUICK if quick else CUDA if device == "cuda" else CPU
        self.precisions = ["bf16", "float32"] if quick or machine.has_bf16(device) else ["float32"]

    def copy_rate(self) -> float:
        """GB/s of plain copies at this moment."""
        return machine.copy_rate(self.device, megabytes=8 if self.quick else 256)

    def upload_rate(self) -> float:
        """GB/s of copies from page-locked memory to the GPU at this moment."""
        return machine.upload_rate(megabytes=8 if self.quick else 256)

    @cached_property
    def matrix_rates(self) -> dict[str, float]:
        """FLOP/s of matrix products in this run, by precision."""
        return {name: machine.matrix_rate(self.device, _DTYPES[name], quick=self.quick) for name in self.precisions}

    def measured_limits(self) -> dict[str, Any]:
        """Plain values."""
        rates = {f"matrix products {name}, GFLOP/s": round(rate / 1e9, 1) for name, rate in self.matrix_rates.items()}
        copies = {"copy, GB/s": round(self.copy_rate(), 2)}
        if self.device == "cuda":
            copies["upload, GB/s"] = round(self.upload_rate(), 2)
        return copies | rates
