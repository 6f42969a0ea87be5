"""Find folders of `transformers` models, and read them without running code from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coattn._internal.files import require

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model-*.safetensors")
_EXTRA = "text"  # of this package, which brings transformers


def local_folder(
    name: str | os.PathLike[str],
    allow_download: bool,
    *,
    kind: str,
    files: Sequence[str],
    permission: str = "say --allow-download",
) -> Path:
    """Find the folder of a model: a given folder, or the cached files of a name on the Hub.

    Args:
        name: folder or name.
        allow_download: fetch a name that is not on this machine; otherwise there is no network access at all.
        kind: description of the model in messages.
        files: patterns of the needed files; others are not downloaded.
        permission: how the user can allow the download, for messages.

    Raises:
        ValueError: it is not on this machine.
        ModuleNotFoundError: `transformers` is not installed.
    """
    if Path(name).is_dir():
        return Path(name)
    hub, errors = require("huggingface_hub", _EXTRA), require("huggingface_hub.errors", _EXTRA)
    missing = f"{kind} {str(name)!r} is neither a folder nor on this machine"
    try:
        return Path(hub.snapshot_download(str(name), allow_patterns=list(files), local_files_only=not allow_download))
    except errors.LocalEntryNotFoundError:
        hint = "is the network reachable?" if allow_download else f"give its folder, or {permission}"
        raise ValueError(f"{missing}; {hint}") from None
    except (errors.HFValidationError, errors.RepositoryNotFoundError):
        raise ValueError(f"{missing}{', nor on the Hub' if allow_download else ''}") from None


@contextmanager
def explained(source: str, folder: Path | None = None, *, kind: str) -> Iterator[None]:
    """Turn any error of `transformers` about a damaged or unknown model into one line."""
    try:
        yield
    except Exception as error:  # of many kinds
        summary = (str(error).strip() or type(error).__name__).split("\n")[0]
        if folder is not None:
            summary = summary.replace(str(folder), source)
        raise ValueError(f"{source}: transformers cannot load this {kind}: {summary}") from error


@contextmanager
def no_progress_bar(logging: Any) -> Iterator[None]:
    """Hide the bar of loading, which takes a second or less: it would interfere with the command's progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Hide the progress bar, and the table of unused tensors of a file."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bar(logging):
            yield
    finally:
        logging.set_verbosity(level)


def check_has_config(folder: Path, *, kind: str) -> None:
    """Raise ValueError unless there is a config.json."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: there is no config.json; a {kind} is a folder as save_pretrained() writes it")


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a folder that match one of the patterns, sorted by name."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
