"""Entries of JSON files, checked: what is wrong is said with file, kind, number and question of the entry."""

from __future__ import annotations

import gc
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


def read_json_file(path: str | Path) -> Any:
    """Read a JSON file of any size, `.json` or `.json.gz`.

    Raises:
        ValueError: the file is not UTF-8 JSON; the message names the file and the place.
        OSError: the file cannot be read.
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    try:
        with _without_collector():
            return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ValueError(f"{path}: not valid JSON ({place}); is the file complete?") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); convert the file to UTF-8") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise ValueError(f"{path}: not usable JSON ({error})") from None


@contextmanager
def _without_collector() -> Iterator[None]:
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

    path: str | Path
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

    def fail(self, problem: str) -> NoReturn:
        """Say what is wrong here."""
        question_id = self.entry.get("question_id") if isinstance(self.entry, dict) else None
        name = "" if question_id is None else f" (question_id {question_id!r})"
        raise ValueError(f"{self.path}: {self.kind} {self.index}{name}: {problem}")


def type_name(value: Any) -> str:
    """The type of a JSON value, in words."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def checked_id(value: Any, key: str, where: Place) -> int | str:
    """`value`, if it can be the id of a question or an image."""
    if type(value) is int or (type(value) is str and value):
        return value
    where.fail(f"{key} is {value!r} ({type_name(value)}), must be an integer or a non-empty text")


def checked_text(value: Any, key: str, where: Place) -> str:
    """`value`, if it is text."""
    if type(value) is not str:
        where.fail(f"{key} is {value!r} ({type_name(value)}), must be text in quotation marks")
    return value
