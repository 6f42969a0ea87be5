"""Entries of JSON files, checked: what is wrong is said with file, kind, number and question of the entry."""

from __future__ import annotations

import gc
import gzip
import json
import re
import reprlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:  # imported where a file is read: questions that are at hand already need none
    import msgspec

from coattn._internal.files import parse_json

File = Path | zipfile.Path  # a file, or a member of a zip archive
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class JSONList(NamedTuple):
    """A list in a JSON file, whose entries are decoded one by one: only the text of a large file stands in memory.

    Attributes:
        head: what stands beside the list.
        entries: those of the list.
    """

    head: dict[str, Any]
    entries: Iterator[Any]


def read_json_file(path: str | File) -> Any:
    """Read a JSON file of any size, `.json` or `.json.gz`, also within a zip archive.

    Raises:
        ValueError: the file is not UTF-8 JSON; the message names the file and the place.
        OSError: the file cannot be read.
    """
    with without_collector():
        return parse_json(read_bytes(path), path)


def read_json_list(path: str | File, key: str) -> JSONList:
    """Read a file that is an object with a list under `key`; without a key, a file that is a list.

    Raises:
        ValueError: the file is something else, or not UTF-8 JSON; the entries may raise it later.
        OSError: the file cannot be read.
    """
    import msgspec

    content = _read_content(path)
    try:
        raw: dict[str, Any] = msgspec.json.decode(content, type=dict[str, msgspec.Raw]) if key else {key: content}
        entries = _entries(msgspec.json.decode(raw.pop(key), type=list[msgspec.Raw]), content, path)
        return JSONList({name: msgspec.json.decode(value) for name, value in raw.items()}, entries)
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeDecodeError):  # to say what there is instead
        value = parse_json(content, path)
    if key and (not isinstance(value, dict) or key not in value):
        raise ValueError(f'{path}: a file of {key} is an object with a list "{key}"; {kind_of(value)}')
    entries_read = value.pop(key) if key else value
    if not isinstance(entries_read, list):
        raise ValueError(
            f'{path}: "{key}" is {type_name(entries_read)}, must be a list'
            if key
            else f"{path}: the file must be a list; {kind_of(value)}"
        )
    return JSONList(value if key else {}, iter(entries_read))


def read_json_table(path: str | File) -> Iterator[tuple[str, Any]]:
    """The keys and values of a file that is an object, decoded one by one.

    Raises:
        ValueError: the file is something else, or not UTF-8 JSON.
        OSError: the file cannot be read.
    """
    import msgspec

    content = _read_content(path)
    try:
        raw = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        return zip(raw, _entries(list(raw.values()), content, path), strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        value = parse_json(content, path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: the file must be an object; {kind_of(value)}")
    return iter(value.items())


def _entries(raw: list[msgspec.Raw], content: bytes, path: str | File) -> Iterator[Any]:
    import msgspec

    decode = msgspec.json.Decoder().decode
    for entry in raw:
        try:
            yield decode(entry)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            parse_json(content, path)  # says where
            yield json.loads(bytes(entry))  # right, but not to the letter of the standard: NaN


def _read_content(path: str | File) -> bytes:
    """The bytes of a file, unpacked, without byte order mark."""
    return read_bytes(path).removeprefix(b"\xef\xbb\xbf")


def read_bytes(path: str | File) -> bytes:
    """The bytes of a file, unpacked by gzip where it is packed so, also of a member of a zip archive.

    Raises:
        ValueError: the file or the archive is damaged, or encrypted.
        OSError: the file cannot be read.
    """
    content = _read(Path(path) if isinstance(path, str) else path)
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); fetch it again") from None


def _read(path: File) -> bytes:
    with naming_archive(path):
        return path.read_bytes()


@contextmanager
def naming_archive(path: object) -> Iterator[None]:
    """Say which file, within which zip archive, cannot be read inside.

    Raises:
        ValueError: the archive is damaged, or encrypted.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: the zip archive is damaged ({error}); fetch it again") from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted; compressed in an unusual way
        raise ValueError(f"{path}: cannot be read out of the zip archive ({error}); unpack it") from None


@contextmanager
def without_collector() -> Iterator[None]:
    """Hold back the search for unreachable cycles, which looks at millions of new objects in vain: 45 % of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def kind_of(value: Any) -> str:
    """What a JSON value looks like, for people who passed the wrong file."""
    if isinstance(value, list):
        return "this is a list, as result files are"
    if not isinstance(value, dict):
        return f"this is {type_name(value)}"
    for key in ("questions", "annotations"):
        if key in value:
            return f"this is a file of {key}: are the files swapped?"
    return f"this has {', '.join(map(repr, value)) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file, for messages."""

    path: str | File
    kind: str
    index: int
    entry: Any

    def get(self, key: str) -> Any:
        """The value of a key that must be there."""
        if not isinstance(self.entry, dict):
            self.fail(f"is {type_name(self.entry)}, must be an object")
        if key not in self.entry:
            self.fail(f"has no {key!r}, only {', '.join(map(repr, self.entry)) or 'nothing'}; add it")
        return self.entry[key]

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} {self.index}"

    def fail(self, problem: str) -> NoReturn:
        """Say what is wrong here."""
        question_id = self.entry.get("question_id") if isinstance(self.entry, dict) else None
        name = "" if question_id is None else f" (question_id {question_id!r})"
        raise ValueError(f"{self}{name}: {problem}")


def type_name(value: Any) -> str:
    """The type of a JSON value, in words."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def checked_id(value: Any, key: str, where: Place) -> int | str:
    """`value`, if it can be the id of a question or an image."""
    if type(value) is int:
        return value
    if type(value) is str and value:
        return checked_text(value, key, where)
    where.fail(f"{key} is {_brief(value)} ({type_name(value)}), must be an integer or a non-empty text")


def checked_text(value: Any, key: str, where: Place) -> str:
    """`value`, if it is text."""
    if type(value) is not str:
        where.fail(f"{key} is {_brief(value)} ({type_name(value)}), must be text in quotation marks")
    if not value.isascii() and _LONE_SURROGATE.search(value):
        where.fail(f"{key} is {_brief(value)}: half a character (a lone \\ud...), which no file can hold; correct it")
    return value


def _brief(value: Any) -> str:
    """For messages; a pickle of a hundred bytes can hold lists whose whole text has no end."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)
