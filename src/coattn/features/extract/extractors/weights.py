"""Read, load and identify the weights of networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from coattn._internal.files import require_regular


@contextmanager
def always_the_same() -> Iterator[None]:
    """Random numbers from one fixed seed, for weights "none"; the caller's are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a PyTorch state dict; no code of the file is run.

    Raises:
        ValueError: not such a file, or a pipe or a device.
        OSError: it cannot be opened.
    """
    require_regular(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on junk, the unpickler raises nearly anything
        raise ValueError(f"{path}: not a .safetensors file or a PyTorch state dict ({error})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds more than a state dict (name to tensor); save model.state_dict() alone")
    return state


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of the names: the same for every file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, without BatchNorm's counters, which change nothing in evaluation."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def load_weights(network: nn.Module, given: Mapping[str, Tensor], known: Iterable[str], source: str) -> None:
    """Copy weights into `network`; those of `known` names that it does not have may be there or not.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape.
    """
    wanted = state_of(network)
    missing = [name for name in wanted if name not in given]
    unknown = sorted(given.keys() - set(known))
    misshapen = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    if missing or unknown or misshapen:
        shapes = [f"{name} {list(given[name].shape)}, needed {list(wanted[name].shape)}" for name in misshapen[:1]]
        raise ValueError(
            f"weights {source} do not fit: of {len(wanted)} tensors {len(missing)} are missing {missing[:1]}, "
            f"{len(misshapen)} have another shape {shapes}; {len(unknown)} are unknown {unknown[:1]}"
        )
    network.load_state_dict({name: given[name] for name in wanted}, strict=False)


class FoundWeights(NamedTuple):
    """The tensors of a network, None for random ones; their name; and torchvision's entry, if they are its weights."""

    tensors: dict[str, Tensor] | None
    name: str
    own: Any = None


def find_torchvision_weights(weights: str | Path, known: Any) -> FoundWeights:
    """The weights that a word or a file names.

    Args:
        weights: "default", "none", a file, or if there is no such file the name of a member of `known`.
        known: torchvision's enumeration of its weights of the network, to be downloaded if need be.

    Raises:
        ValueError: a word that is no such name, or a file that holds no weights.
        OSError: they cannot be read or downloaded.
    """
    if weights == "none":
        return FoundWeights(None, "random")
    path = Path(weights)
    is_file = weights != "default" and path.exists()
    own = None if is_file else known.DEFAULT if weights == "default" else known.__members__.get(str(weights))
    if own is None:
        if not is_file and path.name == str(path) and not path.suffix:
            names = ", ".join(known.__members__)
            raise ValueError(f"weights {str(weights)!r}: no file, and torchvision has only {names} for this model")
        return FoundWeights(read_state_dict(path), path.stem)
    try:
        return FoundWeights(dict(own.get_state_dict(progress=True, check_hash=True)), str(own), own)
    except OSError as error:
        raise OSError(f"cannot download {own} ({error}); give a local file: --weights FILE") from None
