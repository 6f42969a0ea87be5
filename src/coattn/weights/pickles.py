"""Read weights from checkpoint files, which are pickles, without running code that a pickle may hold."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coattn._internal.files import require_regular

# The key of the weights in a training checkpoint, and the prefix that `DataParallel` adds to each name.
STATE_DICT, PARALLEL = "state_dict", "module."


class Checkpoint(NamedTuple):
    """The content of a checkpoint file.

    Attributes:
        weights: the state dict, without the prefix of `DataParallel`.
        rest: all other values: optimizer, epoch, settings.
    """

    weights: dict[str, Tensor]
    rest: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str], *, allowed: Sequence[type] = ()) -> Checkpoint:
    """Read a checkpoint file of torch: a state dict, or a dict that holds one under `state_dict`.

    Args:
        path: the file.
        allowed: plain classes that it may hold besides tensors and Python's built-in values.

    Raises:
        ValueError: the file holds other objects, is damaged, or has no weights.
        OSError: the file cannot be read.
    """
    require_regular(path)
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings(action="ignore"):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        names = re.findall(r"(?:GLOBAL|Unsupported (?:class|global):?(?: GLOBAL)?) `?([\w.]+\.\w+)", str(error))
        raise ValueError(
            f"{path}: this checkpoint is a pickle that needs more than weights"
            f"{f' ({names[0]})' if names else ''}; reading that could run any code, so it is refused. If you trust it, "
            "load it with the code it comes from, and save its state_dict alone"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path}: not a readable checkpoint of torch ({type(error).__name__}: {error!s:.80})"
        ) from None
    rest = {} if not isinstance(found, Mapping) else {key: value for key, value in found.items() if key != STATE_DICT}
    weights = found.get(STATE_DICT) if isinstance(found, Mapping) and STATE_DICT in found else found
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items())
    ):
        holds = f"a {type(found).__name__}" + (
            f" of {', '.join(map(str, found))}" if isinstance(found, Mapping) else ""
        )
        raise ValueError(f"{path}: holds no state dict of weights, but {holds:.200}")
    if all(name.startswith(PARALLEL) for name in weights):
        weights = {name.removeprefix(PARALLEL): value for name, value in weights.items()}
    return Checkpoint(dict(weights), rest if weights is not found else {})
