"""Devices by name, and rows of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (n, ...) of different n as (B, N, ...) with zeros at padding, and the mask (B, N), True = real.

    A single row is not copied.
    """
    if len(rows) == 1 and len(rows[0]):
        return rows[0][None], torch.ones(1, len(rows[0]), dtype=torch.bool)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
    values = rows[0].new_zeros((*mask.shape, *rows[0].shape[1:]))
    values[mask] = torch.cat(list(rows))
    return values, mask


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is an accelerator where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} is not there: {str(error).splitlines()[0]}") from None
