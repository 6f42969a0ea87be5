"""Read pickles of unknown origin without running code from them.

A pickle is a program that names functions and calls them. Here it may name only entries of an allow-list, which maps
them to functions of this file. These make plain containers, numbers, text and, on request, numpy arrays.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

import numpy as np

# Names that a pickle may use: (module, name) -> the function that makes the value here.
AllowList = Mapping[tuple[str, str], Callable[..., Any]]

# Kinds of array elements: booleans, integers, floats, complex numbers, bytes, text; objects in arrays only.
_ELEMENT = re.compile(r"[<>|=]?([?biufcSU]\d*|O8?|float\d+|u?int\d+|bool)")
_DEEPEST = 100  # tuples in tuples: hashing them, as keys, takes as many frames of C


def read_pickle(path: str | Path, *, allowed: AllowList | None = None, encoding: str = "latin1") -> Any:
    """Read a pickle file; see `unpickle`.

    Raises:
        ValueError: as `unpickle`.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return unpickle(file, path, allowed=allowed, encoding=encoding)


def unpickle(
    source: bytes | BinaryIO, where: str | Path, *, allowed: AllowList | None = None, encoding: str = "latin1"
) -> Any:
    """Read one pickle, which may consist of allowed parts only.

    Args:
        source: the pickle, or a file positioned at its beginning; reading stops at its end.
        where: description of the source in messages.
        allowed: the names it may use: `PLAIN` (the default), or `ARRAYS`, which adds numpy's arrays and scalars. Their
            elements are numbers, text, bytes, and in arrays also objects that are themselves allowed.
        encoding: encoding of texts of Python 2; its numpy arrays need "latin1".

    Raises:
        ValueError: it uses another name, which the message states, or it is damaged.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return _Unpickler(file, PLAIN if allowed is None else allowed, encoding).load()
    except _RefusedError as error:
        raise ValueError(
            f"{where}: this pickle holds {error}, which is not read because it can run code; only plain containers, "
            "numbers, text and numpy arrays are. If you trust it, load it with Python and save those"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{where}: damaged pickle ({type(error).__name__}: {error}); get the file again") from None


class _RefusedError(Exception):
    """A pickle uses something that is not allowed."""


class _Unpickler(pickle._Unpickler):
    """The interpreter in Python, whose private methods are overridden.

    The documented `find_class` of the interpreter in C does not protect enough: there a file of ten bytes can ask for
    30 GB, and a pickle can change the inside of an array. Here each change of an object is checked, and memory grows
    only with the file.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, allowed: AllowList, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.allowed = allowed
        self.depths: dict[int, int] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The function for an allowed name."""
        if (module, name) not in self.allowed:
            raise _RefusedError(f"{module}.{name}")
        return self.allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to data outside of the file."""
        raise _RefusedError("a reference to something outside of it")

    def load_build(self) -> None:
        """Set the state of an array, or of the description of its elements."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Elements):
            self.stack[-1].set_state(*state)
        elif type(self.stack[-1]) is np.ndarray:
            _fill(self.stack[-1], *state)
        else:
            raise _RefusedError(f"a change to the inside of {type(self.stack[-1]).__name__}")

    def load_any_tuple(self, code: int) -> None:
        """Make a tuple as usual, with a limit on tuples within tuples."""
        dispatch: dict[int, Any] = pickle._Unpickler.dispatch
        dispatch[code](self)
        made = self.stack[-1]
        depth = 1 + max((self.depths.get(id(part), 1) for part in made if type(part) is tuple), default=0)
        if depth > _DEEPEST:
            raise _RefusedError(f"tuples in tuples, more than {_DEEPEST} deep")
        self.depths[id(made)] = depth

    def load_extension(self) -> None:
        """Refuse names by number, which the file does not define."""
        raise _RefusedError("a name by its number")

    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_code[0]] = load_extension
    for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        dispatch[_code[0]] = partial(load_any_tuple, code=_code[0])


class _Elements:
    """Description of an array's elements. It replaces numpy's dtype, whose state numpy does not check."""

    def __init__(self, kind: str, align: Any = False, copy: Any = True) -> None:
        if not isinstance(kind, str) or not _ELEMENT.fullmatch(kind):
            raise _RefusedError(f"array elements of the kind {kind!r}")
        self.dtype = np.dtype(kind)

    def set_state(self, version: int, order: Any, base: None, names: None, fields: None, *sizes: Any) -> None:
        """Their byte order; records and nested arrays are refused."""
        if base is not None or names or fields:
            raise _RefusedError("an array of records")
        self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)


def _fill(
    array: np.ndarray, version: int, shape: tuple[int, ...], elements: _Elements, fortran: bool, data: Any
) -> None:
    """Set the content of an array that `_empty` made."""
    dtype = _plain_dtype(elements)
    if dtype.hasobject:
        if type(data) is not list or len(data) != math.prod(shape):
            raise ValueError(f"array of shape {shape} without a list of as many objects")
    else:
        data = _bytes_for(data, dtype, shape)
    state: Any = (1, shape, dtype, bool(fortran), data)
    array.__setstate__(state)


def _bytes_for(data: Any, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    content = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
    if min(shape, default=0) < 0 or len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for an array of {dtype} of shape {shape}")
    return content


def _plain_dtype(elements: Any) -> np.dtype:
    if not isinstance(elements, _Elements):
        raise ValueError(f"elements of an array are described by {type(elements).__name__}")
    return elements.dtype


def _array_class(*arguments: Any) -> None:
    """Placeholder for numpy's array class, which pickles name but never call."""
    raise _RefusedError("a call of numpy.ndarray")


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _array_class:
        raise _RefusedError("a special kind of array")
    return np.empty(0, np.uint8)


def _from_buffer(data: Any, elements: _Elements, shape: tuple[int, ...], order: str) -> np.ndarray:
    dtype = _plain_dtype(elements)
    if dtype.hasobject:
        raise _RefusedError("objects as bytes")
    content = bytearray(_bytes_for(data, dtype, shape))  # writable
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(elements: _Elements, data: Any) -> Any:
    dtype = _plain_dtype(elements)
    if dtype.hasobject:
        raise _RefusedError("an object as a number")
    return np.frombuffer(_bytes_for(data, dtype, (1,)), dtype)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as old protocols write them."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """A bytearray of given content. A number is refused: it would be a size to allocate."""
    return bytearray(_encode(content, encoding) if isinstance(content, str) else bytes(memoryview(content)))


def _default_dict(factory: Any = None, *items: Any) -> defaultdict:
    if factory is not None and factory not in _BUILTINS.values():
        raise _RefusedError("a defaultdict with a function that is not built in")
    return defaultdict(factory, *items)


def _text(value: str = "") -> str:
    """A text. Bytes with an encoding are refused: Python would import a module of the encoding's name."""
    return str(value)


_BUILTINS: dict[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in (bool, int, float, complex, list, dict, set, frozenset)},
    "bytearray": _bytearray,
    "bytes": lambda *content: b"".join(bytes(memoryview(part)) for part in content),
    "str": _text,
}
PLAIN: AllowList = MappingProxyType(
    {
        **{(module, name): kind for name, kind in _BUILTINS.items() for module in ("builtins", "__builtin__")},
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "Counter"): Counter,
        ("collections", "defaultdict"): _default_dict,
    }
)
_MULTIARRAY: dict[str, Callable[..., Any]] = {"_reconstruct": _empty, "scalar": _scalar}
ARRAYS: AllowList = MappingProxyType(
    {
        **PLAIN,
        ("numpy", "ndarray"): _array_class,
        ("numpy", "dtype"): _Elements,
        **{
            (f"numpy.{core}.multiarray", name): make for core in ("core", "_core") for name, make in _MULTIARRAY.items()
        },
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }
)
