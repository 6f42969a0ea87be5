"""Interface of a file or folder of features to the converter: a list of images, and a way to read each."""

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

from coattn._internal.files import IMAGE_SUFFIXES, files_below, require_regular, sha256_of_file
from coattn.features.store.image_ids import coco_number


class SourceImage(NamedTuple):
    """An image of a source.

    Attributes:
        name: its name in the source.
        files: the files that hold it.
        record: its record in the file, as people would name it; "" if the file holds no other image.
        key: its position, for the source.
    """

    name: str
    files: tuple[Path, ...]
    record: str = ""
    key: Any = None

    @property
    def short(self) -> str:
        """File and record without folders, so that a moved source still has the same."""
        return f"{self.files[0].name}, {self.record}" if self.record else self.files[0].name

    @property
    def where(self) -> str:
        """File and record, for messages."""
        return str(self.files[0].parent / self.short)


class ImageRegions(NamedTuple):
    """The n regions of one image, as the source holds them.

    Attributes:
        features: (n, D) floats.
        boxes: (n, 4) x1 y1 x2 y2 in pixels, or in [0, 1] of the image; None if unknown. They must be in [0, 1] if the
            size is unknown.
        size: width and height of the image in pixels; (0, 0) if unknown.
        labels: (n,) class of each region; None if unknown. Likewise the others.
        scores: (n,) confidence of the class.
        attributes: (n,) attribute of each region.
        attribute_scores: (n,) confidence of the attribute.
    """

    features: np.ndarray
    boxes: np.ndarray | None
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
        extractor: name of the extractor of its features, as far as the files show it.
    """

    path: Path
    entries: Sequence[SourceImage]
    extractor: str

    @abstractmethod
    def read(self, entry: SourceImage) -> ImageRegions:
        """Read the regions of one image."""

    @abstractmethod
    def origins(self, entries: Iterable[SourceImage]) -> list[dict[str, Any]]:
        """The files of `entries` with their hashes, to be kept with the features."""

    @abstractmethod
    def fingerprint(self, entries: Iterable[SourceImage]) -> str:
        """A hash that changes when the files of `entries` change, as far as that is cheap to find out."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close open files."""


class FileSource(FeatureSource):
    """A source in one file, perhaps with further files that belong to it."""

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
        """The folder, with a hash over the hashes of its files that were read."""
        files = [file for entry in entries for file in entry.files if file.exists()]
        digest = hashlib.sha256("".join(map(sha256_of_file, files)).encode())
        return [{"file": self.path.name, "sha256": digest.hexdigest(), "files": len(files)}]

    def fingerprint(self, entries: Iterable[SourceImage]) -> str:
        """A hash of the files' names and sizes. It is cheap, and does not see a new file of the same size."""
        files = [file for entry in entries for file in entry.files]
        sizes = [[file.name, file.stat().st_size if file.exists() else -1] for file in files]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def files_of(path: Path, suffix: str) -> list[Path]:
    """The files of a folder with a suffix, at any depth; or `path` itself if it is a file.

    Raises:
        ValueError: it is a pipe or a device.
        OSError: there is no such file or folder, or it may not be read.
    """
    if path.is_dir():
        return [file for file in files_below(path) if file.name.endswith(suffix)]
    require_regular(path)
    return [path]


def image_name(path: Path) -> str:
    """The image's name from a file name: without suffix, and without the suffix of the photo (`7.jpg.npz` is `7`)."""
    stem = path.stem
    photo = Path(stem)
    return photo.stem if photo.suffix.lower() in IMAGE_SUFFIXES else stem


def id_rule(ids: str) -> Callable[[str], str]:
    """Make the function that turns an image's name in its source into its id.

    Args:
        ids: one of these. "auto" takes the number of COCO's file names (COCO_train2014_000000458752, also with .jpg),
            as VQA's questions do, and other names unchanged. "name" takes every name unchanged. "trailing-number"
            takes the number at the end of each name. A text with {} or {:06d}, such as "CLEVR_val_{:06d}", is filled
            with that number.

    Returns:
        A function that raises ValueError for a name without the number it needs.

    Raises:
        ValueError: unknown `ids`.
    """
    if ids == "name":
        return str
    if ids == "auto":
        return lambda name: coco_number(name) or name
    if ids != "trailing-number" and not re.fullmatch(r"[^{}]*\{(:0\d{1,2}d)?\}[^{}]*", ids):
        raise ValueError(f"ids {ids!r}: must be auto, name, trailing-number, or a text with {{}} or {{:06d}} in it")
    return partial(_trailing_number, template="{}" if ids == "trailing-number" else ids)


def _trailing_number(name: str, *, template: str) -> str:
    match = re.search(r"\d+\Z", name)
    if match is None:
        raise ValueError(f"its name {name!r} ends in no number to take as image id")
    return template.format(int(match.group()))


def number(value: Any, what: str, *, least: int = 0) -> int:
    """Read a whole number from text, an array of one, or a float without fraction.

    Raises:
        ValueError: it is no such number.
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
