"""Read and write files so that errors name the file and nothing is ever half-written."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import importlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from coattn._internal.kinds import kind_of, kind_of_content

try:
    import fcntl
except ModuleNotFoundError:  # Windows: temporary files are not locked, and leftovers stay
    fcntl = None  # type: ignore[assignment]

Place = str | os.PathLike[str]


@contextmanager
def atomic_path(path: Place) -> Iterator[Path]:
    """Yield a temporary file beside `path`. On success it is synced and renamed to `path`; on an error it is removed.

    The temporary file is locked while its process lives. Unlocked ones, left by killed processes, are removed first.

    Raises:
        OSError: `path` is a folder, or cannot be written. The error names `path`, not the temporary file.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    partial, lock = _make_partial(target, _make_file)
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp makes 0600; the result is an ordinary file
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    except OSError as error:
        _name_target(error, partial, target)
        raise
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def atomic_folder(path: Place, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. On success all its files are synced and it is renamed to `path`.

    Locks and leftovers are treated as in `atomic_path`.

    Args:
        path: the folder.
        replace: replace a folder that is at `path`, which then is the old or the new one at every moment.

    Raises:
        FileExistsError: `path` is a folder that is not empty, perhaps of another process (without `replace`).
        OSError: `path` cannot be written.
    """
    target = Path(path)
    with partial_folder(target) as partial:
        yield partial
        for place, _, names in os.walk(partial):
            for name in names:
                sync(Path(place, name))
            sync(Path(place))
        if replace and target.exists():
            exchange(partial, target)  # the old folder, now under the other name, is removed below
        else:
            try:
                partial.rename(target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                raise FileExistsError(f"{target}: already exists; choose another folder or remove it") from None
        sync(target.parent)


@contextmanager
def partial_folder(path: Place) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is removed afterwards, unless it was renamed.

    Locks and leftovers are treated as in `atomic_path`.

    Raises:
        OSError: the folder above `path` cannot be written, or a file in the folder cannot. The error names `path` in
            place of the temporary folder.
    """
    partial, lock = _make_partial(Path(path), tempfile.mkdtemp)
    try:
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)  # mkdtemp makes 0700
        yield partial
    except OSError as error:
        _name_target(error, partial, Path(path))
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def exchange(first: Path, second: Path) -> None:
    """Exchange the names of two folders in one step (Linux' `renameat2`).

    On systems without it three renames follow each other; a process killed between them leaves `second` under the name
    `aside(second)`.
    """
    at_cwd, by_exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is not None and not rename(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), by_exchange):
        return
    second.rename(aside(second))
    first.rename(second)
    aside(second).rename(first)


def aside(path: Path) -> Path:
    """The name of `path` while `exchange` has no way to exchange two names in one step."""
    return path.with_name(f".{path.name}.old")


def _name_target(error: OSError, partial: Path, target: Path) -> None:
    """Have an error name `target` in place of the temporary `partial`, and where it names no file (a full disk)."""
    if error.errno is None:
        return
    if error.filename is None:
        error.filename = str(target)
    elif not isinstance(error.filename, int) and (named := Path(os.fsdecode(error.filename))).is_relative_to(partial):
        error.filename = str(target / named.relative_to(partial))


def _make_file(*, prefix: str, suffix: str, dir: str) -> str:
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=dir)
    os.close(handle)
    return name


def _make_partial(target: Path, make: Callable[..., str]) -> tuple[Path, int]:
    """A locked temporary file or folder beside `target`, and the open handle that holds the lock."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    remove_leftovers(target)
    while True:
        try:
            partial = Path(make(prefix=f".{target.name}.", suffix=".partial", dir=str(target.parent)))
        except OSError as error:
            error.filename = str(target)
            raise
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            continue
        _lock(lock)
        if partial.exists():
            return partial, lock
        os.close(lock)


def _lock(handle: int) -> bool:
    """Lock an open file or folder for as long as its process lives; False if another process holds the lock."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or a network file system without locks
        return False
    return fcntl is not None


def remove_leftovers(target: Place) -> None:
    """Remove the temporary files and folders that killed processes left while they were writing `target`.

    The name "*" stands for all targets of a folder.
    """
    path = Path(target)
    name = "*" if path.name == "*" else glob.escape(path.name)
    for leftover in path.parent.glob(f".{name}.*.partial"):
        try:
            handle = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue
        try:
            if _lock(handle) and leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            elif _lock(handle):
                leftover.unlink(missing_ok=True)
        finally:
            os.close(handle)


def sync(path: Path) -> None:
    """Have a file, or the entries of a folder, written to the disk: a power cut after this loses nothing of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def require_regular(path: Place) -> None:
    """Refuse pipes, sockets and devices, which may never end, and what cannot be opened. Links are followed.

    The errors of libraries that open a file themselves often do not name it; those of this function do.

    Raises:
        ValueError: it is a pipe, socket or device.
        OSError: there is no such file, it is a folder, or it may not be read.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, f"is {kind_of(path)}, not a file; give a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = next(name for test, name in _SPECIAL if test(mode))
        raise ValueError(f"{os.fspath(path)}: is a {kind}, not a regular file; give a regular file")
    open(path, "rb").close()


_SPECIAL: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (lambda mode: True, "device"),
)


def read_bytes(path: Place) -> bytes:
    """The content of a regular file.

    Raises:
        ValueError: it is a pipe, socket or device.
        OSError: it cannot be read.
    """
    require_regular(path)
    return Path(path).read_bytes()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Place, value: Any, *, indent: int | None = None) -> None:
    """Write `value` as UTF-8 JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Place, *, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        pairs_hook: converts the pairs of each object, duplicates included. By default an object becomes a dict.

    Raises:
        ValueError: the file is not UTF-8 JSON, or holds half of a surrogate pair, which cannot be printed or saved; the
            message names the file and the place.
        OSError: the file cannot be read.
    """
    content = read_bytes(path)
    value = parse_json(content, path, pairs_hook=pairs_hook)
    if _SURROGATE.search(content):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            before = error.object[max(0, error.start - 40) : error.start]
            raise ValueError(
                f"{path}: half of a surrogate pair, which is no text, after {before}; correct it"
            ) from None
    return value


def parse_json(
    content: str | bytes, where: object, *, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Parse JSON text. `where` names it in messages; see `read_json`.

    Raises:
        ValueError: it is not UTF-8 JSON, or its lists are nested too deeply, or a number has thousands of digits.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=pairs_hook)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        start = content[:12] if isinstance(content, bytes) else content[:12].encode(errors="replace")
        kind = kind_of_content(start, str(where))
        if kind not in ("another kind of file", "a JSON file"):
            raise ValueError(f"{where}: is {kind}, not JSON; give a JSON file") from None
        if isinstance(error, UnicodeDecodeError):
            raise _not_utf8(error, where) from None
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        several = error.msg == "Extra data" and error.lineno > 1
        hint = "is it one object per line? Then name it .jsonl" if several else "is the file complete?"
        raise ValueError(f"{where}: not valid JSON ({place}); {hint}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not usable JSON ({error})") from None


def decode_utf8(content: bytes, where: object) -> str:
    """Decode UTF-8 and remove a byte order mark. `where` names the content in messages.

    Raises:
        ValueError: it is not UTF-8; the message names line and byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, where) from None


def _not_utf8(error: UnicodeDecodeError, where: object) -> ValueError:
    line = error.object.count(b"\n", 0, error.start) + 1
    return ValueError(f"{where}: line {line}: not UTF-8 text (byte {error.start}); convert the file to UTF-8")


# The formats of images that are read, by the suffixes of their files.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


def files_below(folder: Place) -> list[Path]:
    """The files of a folder at any depth, sorted. Broken links are included, so that their reader can name them.

    Raises:
        OSError: a folder may not be read. (`Path.rglob` would silently leave out its files.)
    """
    return sorted(Path(place, name) for place, _, names in os.walk(folder, onerror=_raise) for name in names)


def _raise(error: OSError) -> None:
    raise error


def sha256_of_file(path: Place) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    require_regular(path)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or name the extra of this package that installs it.

    Raises:
        ModuleNotFoundError: with the command that installs the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != package:
            raise
        raise ModuleNotFoundError(_missing(package, extra), name=error.name) from None


def name_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The same error, with the command that installs what is missing if the extra `model` brings it."""
    package = (error.name or "").split(".")[0]
    if package not in ("torch", "h5py"):
        return error
    return ModuleNotFoundError(_missing(package, "model"), name=error.name)


def error_text(error: Exception) -> str:
    """The text of an error; of the system's own, without its number."""
    if isinstance(error, ModuleNotFoundError):
        return str(name_extra(error))
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _missing(package: str, extra: str) -> str:
    return f"this needs the package {package}: pip install 'coattn[{extra}]'"
