"""JSON files and their entries: each fault is reported with the file, the number and the question id of the entry."""

from __future__ import annotations

import gc
import gzip
import io
import json
import re
import reprlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:  # imported where a file is read: questions that are at hand already need none
    import msgspec

from coattn._internal.files import parse_json, require_regular
from coattn._internal.hints import listed
from coattn._internal.kinds import kind_of_content
from coattn.datasets.bad_records import BadRecordError

File = Path | zipfile.Path  # a file, or a member of a zip archive
MAX_UNPACKED = 2 << 30  # bytes that one compressed file may hold
MAX_TEXT = 20_000  # characters of a question or an answer; attention over more words would not fit into memory
_CHUNK = 1 << 24
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class JSONList(NamedTuple):
    """A list in a JSON file. Its entries are decoded one by one, so that only the text of a large file is in memory.

    Attributes:
        head: the other keys of the file.
        entries: the entries of the list.
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


def read_json_list(
    path: str | File, key: str, *, fast_decode: Callable[[msgspec.Raw], Any | None] = lambda entry: None
) -> JSONList:
    """Read a file that is an object with a list under `key`; without a key, a file that is a list.

    Args:
        path: the file.
        key: the key of the list.
        fast_decode: a decoder for a common form of entries; where it returns None an entry is decoded as JSON values.

    Raises:
        ValueError: the file is something else, or not UTF-8 JSON; the entries may raise it later.
        OSError: the file cannot be read.
    """
    import msgspec

    content = _read_content(path)
    try:
        raw: dict[str, Any] = msgspec.json.decode(content, type=dict[str, msgspec.Raw]) if key else {key: content}
        entries = _entries(msgspec.json.decode(raw.pop(key), type=list[msgspec.Raw]), content, path, fast_decode)
        return JSONList({name: msgspec.json.decode(value) for name, value in raw.items()}, entries)
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeDecodeError):  # parse again for the error message
        if key in ("questions", "annotations") and kind_of_content(content[:12], str(path)) == "a table":
            raise ValueError(
                f"{path}: is a table, not a file of {key}; `coattn prepare table` writes one from it"
            ) from None
        value = parse_json(content, path)
    if key and (not isinstance(value, dict) or key not in value):
        raise ValueError(f'{path}: a file of {key} is an object with a list "{key}"; {describe_value(value)}')
    entries_read = value.pop(key) if key else value
    if not isinstance(entries_read, list):
        raise ValueError(
            f'{path}: "{key}" is {type_name(entries_read)}, must be a list'
            if key
            else f"{path}: the file must be a list; {describe_value(value)}"
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
        return zip(raw, _entries(list(raw.values()), content, path, lambda entry: None), strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        value = parse_json(content, path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: the file must be an object; {describe_value(value)}")
    return iter(value.items())


def _entries(
    raw: list[msgspec.Raw], content: bytes, path: str | File, fast_decode: Callable[[msgspec.Raw], Any | None]
) -> Iterator[Any]:
    import msgspec

    decode = msgspec.json.Decoder().decode
    for entry in raw:
        if (found := fast_decode(entry)) is not None:
            yield found
            continue
        try:
            yield decode(entry)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            parse_json(content, path)  # raises an error with line and column
            yield json.loads(bytes(entry))  # NaN is accepted, although it is not standard JSON


def _read_content(path: str | File) -> bytes:
    """The bytes of a file, unpacked, without byte order mark."""
    return read_bytes(path).removeprefix(b"\xef\xbb\xbf")


def read_bytes(path: str | File) -> bytes:
    """Read a file, or a member of a zip archive; gzip is unpacked.

    Raises:
        ValueError: the file or the archive is damaged or encrypted, it unpacks to more than `MAX_UNPACKED` bytes, or
            the path is a pipe or a device.
        OSError: the file cannot be read.
    """
    path = Path(path) if isinstance(path, str) else path
    check_regular(path)
    with naming_archive(path):
        content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    unpacked = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            while chunk := file.read(_CHUNK):
                unpacked += chunk
                _check_unpacked(path, len(unpacked))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); download it again") from None
    return bytes(unpacked)


def check_regular(path: File) -> None:
    """Refuse pipes and devices, which may block or never end, and huge members of archives; missing files pass.

    Raises:
        ValueError: the path exists and is neither a regular file nor a folder, or it is a member of an archive that
            unpacks to more than `MAX_UNPACKED` bytes.
    """
    if isinstance(path, zipfile.Path):
        _check_unpacked(path, path.root.getinfo(path.at).file_size)  # type: ignore[attr-defined]
    elif isinstance(path, Path) and path.exists():
        require_regular(path)


def _check_unpacked(path: File, size: int) -> None:
    if size > MAX_UNPACKED:
        raise ValueError(
            f"{path} unpacks to more than {MAX_UNPACKED >> 30} GiB, the limit for compressed files; unpack it "
            "yourself if you trust its source"
        )


@contextmanager
def naming_archive(path: object) -> Iterator[None]:
    """Name the member and its zip archive in errors of the `zipfile` module.

    Raises:
        ValueError: the archive is damaged, or encrypted.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: the zip archive is damaged ({error}); download it again") from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted; compressed in an unusual way
        raise ValueError(f"{path}: cannot be read from the zip archive ({error}); unpack it") from None


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the garbage collector: its search for cycles takes 45 % of the time that millions of records take."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def describe_value(value: Any) -> str:
    """Describe a JSON value, for people who passed the wrong file."""
    if isinstance(value, list):
        return "this is a list, as result files are"
    if not isinstance(value, dict):
        return f"this is {type_name(value)}"
    for key in ("questions", "annotations"):
        if key in value:
            return f"this is a file of {key}: are the files swapped?"
    return f"this has {listed(map(repr, value))}"


@dataclass(slots=True)  # one is made for each of millions of entries; a frozen one takes four times as long
class Place:
    """An entry of a file and its place, for messages.

    Attributes:
        path: the file.
        kind: "question", "line" ...
        index: number of the entry in its list.
        entry: the entry.
        key: the key of the entry, where the file is an object instead of a list.
    """

    path: str | File
    kind: str
    index: int
    entry: Any
    key: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The entry, which must be an object."""
        if not isinstance(self.entry, dict):
            self.fail(f"is {type_name(self.entry)}, must be an object")
        return self.entry

    def get(self, key: str) -> Any:
        """The value of a required key."""
        if key not in self.fields:
            self.fail(f"has no {key!r}, only {', '.join(map(repr, self.fields)) or 'nothing'}; add it")
        return self.fields[key]

    @property
    def question_id(self) -> Any:
        """The question_id of the entry, an object or an already decoded question; None without one."""
        if isinstance(self.entry, dict):
            return self.entry.get("question_id")
        return getattr(self.entry, "question_id", None)

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} {repr(self.key) if self.key else self.index}"

    def fail(self, problem: str) -> NoReturn:
        """Raise the error for a defect of this entry."""
        name = "" if self.question_id is None else f" (question_id {_brief(self.question_id)})"
        raise BadRecordError(f"{self}{name}", problem)


def type_name(value: Any) -> str:
    """Name the type of a JSON value."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def checked_id(value: Any, key: str, where: Place) -> int | str:
    """Return `value` if it can be the id of a question or an image; else raise `BadRecordError`."""
    if type(value) is int:
        return value
    if type(value) is str and value:
        return checked_text(value, key, where)
    where.fail(f"{key} is {_brief(value)} ({type_name(value)}), must be an integer or a non-empty text")


def checked_text(value: Any, key: str, where: Place) -> str:
    """Return `value` if it is text of at most `MAX_TEXT` characters; else raise `BadRecordError`."""
    if type(value) is not str:
        where.fail(f"{key} is {_brief(value)} ({type_name(value)}), must be text in quotation marks")
    if len(value) > MAX_TEXT:
        where.fail(f"{key} has {len(value)} characters, at most {MAX_TEXT} are read; shorten it")
    if not value.isascii() and _LONE_SURROGATE.search(value):
        where.fail(f"{key} is {_brief(value)}: half a character (a lone \\ud...), which no file can hold; correct it")
    return value


def _brief(value: Any) -> str:
    """Shorten a value for messages: a pickle of a hundred bytes can hold lists with an endless text."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)
