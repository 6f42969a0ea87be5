"""What a file or folder of other people's features is to the converter: a list of images, and a way to read each."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn._internal.files import files_below, sha256_of_file

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class SourceImage(NamedTuple):
    """An image of a source.

    Attributes:
        name: as the source calls it.
        files: the files it is read from.
        record: which record of the file it is, for people; "" if the file is all its own.
        key: how the source finds it.
    """

    name: str
    files: tuple[Path, ...]
    record: str = ""
    key: Any = None

    @property
    def short(self) -> str:
        """File and record, the same from wherever they are seen."""
        return f"{self.files[0].name}, {self.record}" if self.record else self.files[0].name

    @property
    def where(self) -> str:
        """File and record, for messages."""
        return str(self.files[0].parent / self.short)


class ImageRegions(NamedTuple):
    """The n regions of one image, as others keep them.

    Attributes:
        features: (n, D) floats.
        boxes: (n, 4) x1 y1 x2 y2 in pixels, or in [0, 1] of the image where its size is not known.
        size: width and height of the image in pixels; (0, 0) if not known.
        labels: (n,) class of each region; None if not kept. Likewise the others.
        scores: (n,) confidence of the class.
        attributes: (n,) attribute of each region.
        attribute_scores: (n,) confidence of the attribute.
    """

    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]
    labels: np.ndarray | None = None
    scores: np.ndarray | None = None
    attributes: np.ndarray | None = None
    attribute_scores: np.ndarray | None = None


class FeatureSource(ABC):
    """A file or folder of features. `read` raises ValueError or OSError for an image that cannot be read.

    Attributes:
        path: the file or folder.
        entries: its images in order.
        extractor: name of what made its features, as far as it shows.
    """

    path: Path
    entries: Sequence[SourceImage]
    extractor: str

    @abstractmethod
    def read(self, entry: SourceImage) -> ImageRegions:
        """Read the regions of one image."""

    @abstractmethod
    def origins(self, entries: Iterable[SourceImage]) -> list[dict[str, Any]]:
        """Which files `entries` come from, with their hash, to be kept with the features."""

    @abstractmethod
    def fingerprint(self, entries: Iterable[SourceImage]) -> str:
        """A hash that tells whether the files of `entries` have changed, as far as it is cheap to see."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close what is open."""


class FileSource(FeatureSource):
    """A source in one file, perhaps with a second that numbers its images."""

    def __init__(self, path: Path, *, sha256: str | None = None, tables: Sequence[Path] = ()) -> None:
        self.path = path
        hashes = {path: sha256 or sha256_of_file(path), **{table: sha256_of_file(table) for table in tables}}
        self._origins = [{"file": file.name, "sha256": value} for file, value in hashes.items()]

    def origins(self, entries: Iterable[SourceImage]) -> list[dict[str, Any]]:
        """The file, the same for all entries."""
        return self._origins

    def fingerprint(self, entries: Iterable[SourceImage]) -> str:
        """The hash of the file."""
        return hashlib.sha256(json.dumps(self._origins).encode()).hexdigest()


class FolderSource(FeatureSource):
    """A folder with a file or two for each image, or a single such file."""

    def __init__(self, path: Path, entries: Sequence[SourceImage], *, kind: str) -> None:
        self.path = path
        self.entries = entries
        if not entries:
            raise ValueError(f"{path}: holds no {kind}")

    def origins(self, entries: Iterable[SourceImage]) -> list[dict[str, Any]]:
        """The folder, with a hash over the hashes of the files that were read."""
        files = [file for entry in entries for file in entry.files if file.exists()]
        digest = hashlib.sha256("".join(map(sha256_of_file, files)).encode())
        return [{"file": self.path.name, "sha256": digest.hexdigest(), "files": len(files)}]

    def fingerprint(self, entries: Iterable[SourceImage]) -> str:
        """A hash of the files' names and sizes: cheap, but blind to a file replaced by one of the same size."""
        files = [file for entry in entries for file in entry.files]
        sizes = [[file.name, file.stat().st_size if file.exists() else -1] for file in files]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def files_of(path: Path, suffix: str) -> list[Path]:
    """The files of a folder, at any depth, by suffix; or the one file that `path` is.

    Raises:
        OSError: there is no such file or folder, or it may not be read.
    """
    if path.is_dir():
        return [file for file in files_below(path) if file.name.endswith(suffix)]
    path.open("rb").close()
    return [path]


def image_name(path: Path) -> str:
    """The name of an image in the name of its file: without its suffix, and without that of the photo before it."""
    stem = path.stem
    photo = Path(stem)
    return photo.stem if photo.suffix.lower() in _IMAGE_SUFFIXES else stem


def id_rule(ids: str) -> Callable[[str], str]:
    """How the name of an image, as its source calls it, gives its id; raises ValueError for a name that gives none.

    Args:
        ids: "auto": of COCO's file names (COCO_train2014_000000458752) the number, as VQA's questions have it, other
            names as they are; "name": every name as it is; "trailing-number": the number at the end of each name; or a
            text with {} or {:06d} in it: that number in its place, "CLEVR_val_{:06d}".

    Raises:
        ValueError: unknown `ids`.
    """
    if ids == "name":
        return str
    if ids == "auto":
        return _coco_number
    if ids != "trailing-number" and not re.fullmatch(r"[^{}]*\{(:0\d{1,2}d)?\}[^{}]*", ids):
        raise ValueError(f"ids {ids!r}: must be auto, name, trailing-number, or a text with {{}} or {{:06d}} in it")
    return partial(_trailing_number, template="{}" if ids == "trailing-number" else ids)


def _coco_number(name: str) -> str:
    match = re.fullmatch(r"COCO_\w+_(\d+)", name)
    return name if match is None else str(int(match.group(1)))


def _trailing_number(name: str, *, template: str) -> str:
    match = re.search(r"\d+\Z", name)
    if match is None:
        raise ValueError(f"its name {name!r} ends in no number to take as image id")
    return template.format(int(match.group()))


def number(value: Any, what: str, *, least: int = 0) -> int:
    """A whole number out of text, an array of one, or a float without fraction.

    Raises:
        ValueError: it is none.
    """
    try:
        text = value.decode() if isinstance(value, bytes) else value
        single = text if isinstance(text, str) else np.asarray(text).item()
        whole = int(single)
        if whole == float(single) and whole >= least:
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    shown = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    raise ValueError(f"{what} is {shown[:40]!r}, not a whole number from {least}")
