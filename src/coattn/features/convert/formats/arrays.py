"""Read arrays of numpy and torch from files of other projects. Arrays of objects are pickles, and are read as such."""

from __future__ import annotations

import binascii
import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from coattn._internal.files import require_regular
from coattn._internal.unpickle import ARRAYS, unpickle

_LARGEST = 2**30  # bytes of the unpacked array of one image; 100 regions of width 2048 in float32 have 819,200


def read_npy(file: BinaryIO, where: str) -> Any:
    """Read the array of an `.npy` file, or the object of an array of one object.

    Raises:
        ValueError: the file is damaged, claims more than 1 GiB, or holds a pickle of more than plain values and arrays.
    """
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if not dtype.hasobject:
            begin = file.tell()
            size, left = math.prod(shape) * dtype.itemsize, file.seek(0, os.SEEK_END) - begin
            if size > min(left, _LARGEST):
                limit = f"; the limit is {_LARGEST} bytes" if size > _LARGEST else ""
                raise ValueError(f"shape {shape} needs {size} bytes, the file has {left}{limit}")
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{where}: not a readable array of numpy, or cut off ({error!s:.120})") from None
    found = unpickle(file, where, allowed=ARRAYS)
    if isinstance(found, np.ndarray) and found.dtype.hasobject and found.size == 1:
        return found.item()
    return found


def read_torch(path: Path, what: str) -> Any:
    """Read tensors and plain containers from a file of `torch.save`.

    Raises:
        ValueError: the file is damaged, or its pickle holds more than `what`.
        OSError: it cannot be read.
    """
    require_regular(path)
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
    """The arrays of an `.npz` file by name, each read on demand.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        require_regular(path)
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
            size = self._zip.getinfo(f"{name}.npy").file_size
            if size > _LARGEST:
                raise ValueError(f"it unpacks to {size} bytes; the limit is {_LARGEST}")
            content = self._zip.read(f"{name}.npy")
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{self.path}: damaged array {name} ({error!s:.120})") from None
        return read_npy(io.BytesIO(content), f"{self.path}, {name}")

    def first(self, *names: str) -> Any:
        """The first of these arrays that exists; None if none does."""
        return next((self[name] for name in names if name in self.names), None)


def as_rows(value: Any, name: str) -> np.ndarray:
    """A matrix of floats.

    Raises:
        ValueError: it is no matrix of numbers.
    """
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is an array of {array.dtype} of shape {array.shape}, not rows of numbers")
    return array.astype(np.float32, copy=False)


def from_base64(text: Any, name: str, dtype: str, count: int | None = None) -> np.ndarray:
    """Decode an array from base64, strictly: Python's usual decoder skips characters that are not base64.

    Args:
        text: bytes-like or text.
        name: name of the array in messages.
        dtype: type of its numbers.
        count: number of its numbers; None takes any.

    Raises:
        ValueError: not base64, or not as many numbers.
    """
    content = text.encode() if isinstance(text, str) else text
    if content[:2] == b"b'":  # str(bytes), as scripts for Python 2 write it when Python 3 runs them
        content = content[2:-1]
    try:
        decoded = binascii.a2b_base64(content, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"{name} is not base64, or cut off ({error})") from None
    size = np.dtype(dtype).itemsize
    if len(decoded) % size or (count is not None and len(decoded) != count * size):
        wanted = f"whole numbers of {size} bytes" if count is None else f"{count} numbers of {np.dtype(dtype)}"
        raise ValueError(f"{name} has {len(decoded)} bytes, which are not {wanted}")
    return np.frombuffer(decoded, dtype)


def detections(info: Any) -> dict[str, np.ndarray]:
    """Labels, attributes and their scores from a dict of MILVLG, MMF, ViLBERT or VL-T5, as far as it has them."""
    if not isinstance(info, Mapping):
        return {}
    found = {
        ours: info[theirs]
        for ours, theirs in (
            ("labels", "objects_id"),
            ("labels", "objects"),
            ("labels", "obj_id"),
            ("scores", "objects_conf"),
            ("scores", "cls_prob"),
            ("scores", "obj_conf"),
            ("attributes", "attrs_id"),
            ("attributes", "attr_id"),
            ("attribute_scores", "attrs_conf"),
            ("attribute_scores", "attr_conf"),
        )
        if info.get(theirs) is not None
    }
    arrays = {name: np.asarray(value) for name, value in found.items()}
    # MMF keeps the probability of every class; that of the region's class is the largest.
    return {name: value.max(axis=1) if value.ndim == 2 and value.size else value for name, value in arrays.items()}
