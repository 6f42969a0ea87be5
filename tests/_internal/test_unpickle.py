"""Pickles: what is plain comes back as it was, what could run code is refused by name, and nothing of it has run."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import pickletools
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coattn._internal.unpickle import ARRAYS, read_pickle, unpickle

VALUES = {
    "plain": {
        "a": [1, 2.5, None, True, 3 + 4j, 2**80],
        ("t", 1): {"x", "y"},
        b"b": frozenset({1}),
        "ä": bytearray(b"z"),
    },
    "counters": [collections.Counter("aab"), collections.OrderedDict(x=1), collections.defaultdict(list, k=[1])],
    "empty": [(), [], {}, set(), "", b""],
}
ARRAYS_OF = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "big-endian": np.arange(6, dtype=">i8").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "text": np.array(["one", "fünf"]),
    "bytes": np.array([b"ab", b"c"]),
    "bool": np.array([[True], [False]]),
    "half": np.float16([1, 2]),
    "none": np.zeros((0, 5), np.float32),
    "one": np.array(3.5),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_plain_values_come_back(name: str, protocol: int) -> None:
    assert unpickle(pickle.dumps(VALUES[name], protocol), "x.pkl") == VALUES[name]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS_OF)
def test_arrays_come_back(name: str, protocol: int) -> None:
    array = ARRAYS_OF[name]
    content = pickle.dumps({"id": np.int64(7), "again": [array, array]}, protocol)
    found = unpickle(content, "x.pkl", allowed=ARRAYS)
    assert found["id"] == 7
    assert isinstance(found["id"], np.int64)
    back = found["again"][0]
    assert back.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)
    with pytest.raises(ValueError, match=r"x\.pkl: this pickle holds numpy.*, which is not read"):
        unpickle(content, "x.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_objects_come_back(protocol: int) -> None:
    array = np.array([{"boxes": np.ones((2, 4))}, None, "x"], dtype=object)
    found = unpickle(pickle.dumps(array, protocol), "x.pkl", allowed=ARRAYS)
    assert found.shape == (3,)
    np.testing.assert_array_equal(found[0]["boxes"], np.ones((2, 4)))
    assert list(found[1:]) == [None, "x"]


def test_the_names_of_older_numpy_and_python_2() -> None:
    content = pickle.dumps(ARRAYS_OF["float32"], 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(unpickle(content, "x", allowed=ARRAYS), ARRAYS_OF["float32"])
    assert unpickle(b"(dp0\nS'caf\\xc3\\xa9'\np1\nI3\ns.", "x", encoding="utf-8") == {"café": 3}
    assert unpickle(b"c__builtin__\nset\n((lp0\nI1\natR.", "x") == {1}


class Call:
    """Pickled, it calls `function` on loading."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    """Any class of one's own."""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("what", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda mark: Call(open, str(mark), "w"), r"(_?io|builtins)\.open"),
        (lambda mark: Call(getattr, "", "join"), "getattr"),
        (lambda mark: [{"deep": (Call(Path.touch, mark),)}], r"pathlib|getattr"),
        (lambda mark: Plain(), r"test_unpickle\.Plain|copyreg\._reconstructor|copy_reg\._reconstructor"),
        (lambda mark: np.load, r"numpy\.load|numpy\..*load"),
    ],
)
def test_code_is_refused_and_has_not_run(what: Any, name: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(what(mark), protocol))
    with pytest.raises(ValueError, match=rf"bad\.pkl: this pickle holds .*({name}).*can run code"):
        read_pickle(tmp_path / "bad.pkl", allowed=ARRAYS)
    assert not mark.exists()


def call(name: str, arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + arguments + b"tR"


FLOATS = call("numpy.dtype", b"S'f4'\n")
EMPTY = call("numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\n(I0\ntS'b'\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", None),  # a memo of two thousand million places: harmless here
        (b"P1\n.", "something outside"),
        (b"I1\nQ.", "something outside"),
        (b"\x82\x01.", "a name by its number"),
        (b"\x80\x02" + b")" + b"\x85" * 100_000 + b"K\x01s.", "tuples in tuples"),
        (b"ccollections\nOrderedDict\n(dS'__init__'\nI1\nsb.", "a change to the inside of type"),
        (call("builtins.set", b"") + b"(dS'x'\nI1\nsb.", "a change to the inside of set"),
        (call("builtins.bytearray", b"I100000000000\n") + b".", "damaged pickle"),
        (call("builtins.bytes", b"I100000000000\n") + b".", "damaged pickle"),
        (call("builtins.str", b"C\x01aS'idna'\n") + b".", "damaged pickle"),
        (call("_codecs.encode", b"S'a'\nS'rot13'\n") + b".", "text in the encoding 'rot13'"),
        (call("collections.defaultdict", b"c_codecs\nencode\n") + b".", "defaultdict with a function"),
        (call("numpy.ndarray", b"(I1000000000000\nt") + b".", "a call of numpy.ndarray"),
        (call("numpy.dtype", b"S'f4,O'\n") + b".", "elements of the kind 'f4,O'"),
        (FLOATS + b"(I3\nS'|'\nN(S'a'\nt(dS'a'\n(" + FLOATS + b"I99999\ntsI4\nI1\nI0\ntb.", "an array of records"),
        (EMPTY + b"(I1\n(I1000\nt" + FLOATS + b"I00\nC\x04abcdtb.", "4 bytes for an array of float32"),
        (EMPTY + b"(I1\n(I-1\nt" + FLOATS + b"I00\nC\x04abcdtb.", "4 bytes for an array of float32"),
        (EMPTY + b"(I1\n(I9\nt" + call("numpy.dtype", b"S'O'\n") + b"I00\nC\x04abcdtb.", "without a list"),
        (call("numpy.core.multiarray.scalar", call("numpy.dtype", b"S'O'\n") + b"C\x08abcdefgh") + b".", "object"),
        (b"", "damaged pickle"),
        (b"\x80\x04\x95", "damaged pickle"),
        (b"not a pickle at all", "damaged pickle"),
    ],
)
def test_hostile_files(content: bytes, message: str | None) -> None:
    if message is None:
        assert unpickle(content, "x.pkl", allowed=ARRAYS) == []
        return
    with pytest.raises(ValueError, match=rf"^x\.pkl: .*{message}"):
        unpickle(content, "x.pkl", allowed=ARRAYS)


def test_truncated_anywhere_is_said() -> None:
    content = pickle.dumps({"questions": ["a", "b"], "array": np.arange(5)})
    for length in range(len(content)):
        with pytest.raises(ValueError, match="damaged pickle"):
            unpickle(content[:length], "x.pkl", allowed=ARRAYS)


def test_random_changes_give_a_value_or_a_message() -> None:
    content = bytearray(pickle.dumps({"a": [1, "x", (2, 3)], "array": np.arange(5), "n": np.float32(1)}, 2))
    draw = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        with contextlib.suppress(ValueError):  # nothing else may come out
            unpickle(bytes(damaged), "x.pkl", allowed=ARRAYS)


def test_several_in_one_file() -> None:
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps({"b": 2}))
    assert [unpickle(file, "x"), unpickle(file, "x")] == [[1], {"b": 2}]


def test_an_own_allow_list() -> None:
    content = pickle.dumps(Plain(), 2)
    name = (Plain.__module__, "Plain")
    with pytest.raises(ValueError, match=r"holds (copyreg\.__newobj__|.*Plain)"):
        unpickle(content, "x")
    assert isinstance(unpickle(content, "x", allowed={name: Plain}), Plain)


def test_memory_grows_with_the_file_only() -> None:
    """Opcodes that announce more than there is are refused before anything is made."""
    for code in (pickle.BINBYTES8, pickle.BINUNICODE8, pickle.BYTEARRAY8):
        assert pickletools.code2op[code.decode("latin1")]
        with pytest.raises(ValueError, match="damaged pickle"):
            unpickle(b"\x80\x05" + code + struct.pack("<Q", 2**45) + b"abc.", "x")
