"""Arrays out of other people's files, numpy's and torch's. Those of objects are pickles, and read as such."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from coattn._internal.unpickle import ARRAYS, unpickle


def read_npy(file: BinaryIO, where: str) -> Any:
    """The array of an `.npy` file; of an array of one object, that object.

    Raises:
        ValueError: damaged, or a pickle that holds more than plain values and arrays.
    """
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read_header(file)
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{where}: not a readable array of numpy, or cut off ({error!s:.120})") from None
    found = unpickle(file, where, allowed=ARRAYS)
    if isinstance(found, np.ndarray) and found.dtype.hasobject and found.size == 1:
        return found.item()
    return found


def read_torch(path: Path, what: str) -> Any:
    """What `torch.save` wrote: tensors and plain containers.

    Raises:
        ValueError: damaged, or a pickle that holds more than `what`.
        OSError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: this pickle holds more than {what}, which is not read because it can run code ({error!s:.120})"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: not a readable file of torch ({type(error).__name__}: {error!s:.80})") from None


class Npz:
    """The arrays of an `.npz` file by name, read when asked for.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path}: not a readable .npz file, or cut off ({error})") from None
        self.names = {name.removesuffix(".npy") for name in self._zip.namelist()}

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise ValueError(f"{self.path}: has no array {name} (it has {', '.join(sorted(self.names))})")
        try:
            content = self._zip.read(f"{name}.npy")
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{self.path}: damaged array {name} ({error!s:.120})") from None
        return read_npy(io.BytesIO(content), f"{self.path}, {name}")

    def first(self, *names: str) -> Any:
        """The first of these arrays that is there; None if none is."""
        return next((self[name] for name in names if name in self.names), None)


def as_rows(value: Any, name: str) -> np.ndarray:
    """A matrix of floats.

    Raises:
        ValueError: it is none.
    """
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is an array of {array.dtype} of shape {array.shape}, not rows of numbers")
    return array.astype(np.float32, copy=False)


def detections(info: Any) -> dict[str, np.ndarray]:
    """Labels, attributes and their scores out of a dict of MILVLG's or MMF's, as far as it has them."""
    if not isinstance(info, dict):
        return {}
    found = {
        ours: info[theirs]
        for ours, theirs in (
            ("labels", "objects_id"),
            ("labels", "objects"),
            ("scores", "objects_conf"),
            ("scores", "cls_prob"),
            ("attributes", "attrs_id"),
            ("attribute_scores", "attrs_conf"),
        )
        if info.get(theirs) is not None
    }
    arrays = {name: np.asarray(value) for name, value in found.items()}
    # MMF keeps the probability of every class; that of the region's class is the largest.
    return {name: value.max(axis=1) if value.ndim == 2 and value.size else value for name, value in arrays.items()}
