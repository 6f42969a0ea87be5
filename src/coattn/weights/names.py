"""Mapping between our parameter names and those of a published checkpoint: one table for each model.

A table is read in both directions: to import weights, and to export weights or gradients for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

LISTED = 10  # names spelled out in an error message

M = TypeVar("M", bound=torch.nn.Module)


class Layout(NamedTuple):
    """The conversion of a tensor from their layout to ours, and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


class TensorNames(NamedTuple):
    """The two names of one tensor; a layout of None means that both layouts are equal."""

    ours: str
    theirs: str
    layout: Layout | None


class NameTable:
    """A table of names, filled row by row or part by part.

    Attributes:
        entries: the rows.
        unused: names of their tensors that their forward never reads; such tensors are optional and dropped.
    """

    def __init__(self) -> None:
        self.entries: list[TensorNames] = []
        self.unused: list[str] = []

    def tensor(self, ours: str, theirs: str, layout: Layout | None = None) -> None:
        """Add one tensor."""
        self.entries.append(TensorNames(ours, theirs, layout))

    def tensors(self, ours: str, theirs: str, names: Sequence[str] | Mapping[str, str]) -> None:
        """Add several tensors of a part: common `names`, or a mapping from our names to theirs."""
        pairs = names.items() if isinstance(names, Mapping) else ((name, name) for name in names)
        for our_name, their_name in pairs:
            self.tensor(f"{ours}.{our_name}", f"{theirs}.{their_name}")

    def linear(self, ours: str, theirs: str) -> None:
        """Add a linear map with a bias."""
        self.tensors(ours, theirs, ("weight", "bias"))

    def recurrence(self, ours: str, theirs: str, *, layer: int = 0, backward: bool = False) -> None:
        """Add one layer and direction of their `nn.LSTM` or `nn.GRU`; ours has a module for each."""
        suffix = f"_l{layer}{'_reverse' if backward else ''}"
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.tensor(f"{ours}.{layer}.{int(backward)}.{part}_l0", f"{theirs}.{part}{suffix}")

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert their tensors, or gradients, to our names and layouts."""
        return {
            entry.ours: theirs[entry.theirs] if entry.layout is None else entry.layout.to_ours(theirs[entry.theirs])
            for entry in self.entries
        }

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert our tensors, or gradients, to their names and layouts."""
        return {
            entry.theirs: ours[entry.ours] if entry.layout is None else entry.layout.to_theirs(ours[entry.ours])
            for entry in self.entries
        }


def setting(config: Mapping[str, Any], key: str, kind: type, *, project: str) -> Any:
    """One value of a project's settings.

    Raises:
        ValueError: the value is missing, is not of type `kind`, or is an integer below 1 (all integers are sizes).
    """
    if key not in config:
        raise ValueError(f"the settings of {project} lack {key}; they have {', '.join(map(str, config)) or 'nothing'}")
    value = config[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"the settings of {project}: {key} is {value!r}, not of type {kind.__name__}")
    if kind is int and isinstance(value, int) and value < 1:
        raise ValueError(f"the settings of {project}: {key} is {value}, but must be at least 1")
    return value


def size(state_dict: Mapping[str, Tensor], name: str, dim: int = 0, *, project: str) -> int:
    """The size of one of their tensors along a dimension.

    Raises:
        ValueError: the tensor is missing, because the checkpoint belongs to another model.
    """
    tensor = state_dict.get(name)
    if tensor is None or tensor.dim() <= dim:
        found = ", ".join(list(state_dict)[:LISTED])
        raise ValueError(
            f"this is not a checkpoint of {project}: it has no {name} (it begins with {found or 'nothing'})"
        )
    return tensor.shape[dim]


def agreed(config: Mapping[str, Any], key: str, found: int, *, project: str) -> int:
    """A size that the settings and the weights must agree on.

    They are compared before a model is built, because a model of an absurd size would fill the memory.

    Raises:
        ValueError: the setting is missing, or differs from `found`.
    """
    value = setting(config, key, int, project=project)
    if value != found:
        raise ValueError(
            f"the checkpoint and the settings of {project} disagree: {key} is {value}, but the weights have {found}"
        )
    return found


def tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by name as tensors, from tensors or arrays.

    Raises:
        ValueError: a tensor is sparse, is not of floating point, or holds NaN or infinity.
    """
    found = {name: torch.as_tensor(value) for name, value in weights.items()}
    for name, tensor in found.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise ValueError(
                f"weights must be dense tensors of floating point, but {name} is {tensor.dtype}, {tensor.layout}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{name} of the checkpoint holds NaN or infinity: its training diverged, or the file is damaged"
            )
    return found


def filled(model: M, names: NameTable, state_dict: Mapping[str, Tensor], *, project: str) -> M:
    """Load their weights into `model`, in their precision, and return it in eval mode.

    Raises:
        ValueError: tensors are missing, unknown, or of another shape than the settings require; the message names them.
    """
    known = {entry.theirs for entry in names.entries}
    problems = [f"lacks {name}" for name in known if name not in state_dict]
    problems += [f"has the unknown {name}" for name in state_dict if name not in known and name not in names.unused]
    if problems:
        raise ValueError(f"this is not a checkpoint of {project} with these settings: {_listed(sorted(problems))}")
    given = names.to_ours(state_dict)
    expected = model.state_dict()
    assert expected.keys() == given.keys(), f"the table of {project} is not that of its model"
    theirs = {entry.ours: entry.theirs for entry in names.entries}
    problems = [
        f"{theirs[name]} is {tuple(given[name].shape)}, these settings need {tuple(expected[name].shape)}"
        for name in expected
        if given[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"the checkpoint and the settings of {project} disagree: {_listed(problems)}")
    model = model.to(next(iter(given.values())).dtype)
    model.load_state_dict(given)
    return model.eval()


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more
