"""Reading and writing files so that an error names the file and nothing is ever half-written."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on any error remove it.

    Raises:
        OSError: `path` is a folder, or cannot be written; names `path`, not the temporary one.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:
        error.filename = str(target)
        raise
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp makes 0600; the result is an ordinary file
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, name, partial):  # a full disk names no file
            error.filename = str(target)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = None) -> None:
    """Write `value` as UTF-8 JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str], *, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        pairs_hook: makes of an object's pairs what stands for it, duplicates included; a dict if not given.

    Raises:
        ValueError: the file is not UTF-8 JSON; the message names the file and the place.
        OSError: the file cannot be read.
    """
    return parse_json(Path(path).read_bytes(), path, pairs_hook=pairs_hook)


def parse_json(
    content: str | bytes, where: object, *, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of JSON text, which messages call `where`; see `read_json`.

    Raises:
        ValueError: it is not UTF-8 JSON, or holds lists in lists without end, or numbers of thousands of digits.
    """
    text = decode_utf8(content, where) if isinstance(content, bytes) else content
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ValueError(f"{where}: not valid JSON ({place}); is the file complete?") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not usable JSON ({error})") from None


def decode_utf8(content: bytes, where: object) -> str:
    """The text of a file's content, which messages call `where`, without byte order mark.

    Raises:
        ValueError: it is not UTF-8; the message names line and byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{where}: line {line}: not UTF-8 text (byte {error.start}); convert the file to UTF-8"
        ) from None


def files_below(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder, at any depth, sorted; links that lead nowhere too, for their reader to name.

    Raises:
        OSError: a folder may not be read; `Path.rglob` would leave its files out without a word.
    """
    return sorted(Path(place, name) for place, _, names in os.walk(folder, onerror=_raise) for name in names)


def _raise(error: OSError) -> None:
    raise error


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Raises:
        ModuleNotFoundError: with the command that installs the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != package:
            raise
        raise ModuleNotFoundError(f"this needs the package {package}: pip install 'coattn[{extra}]'") from None
