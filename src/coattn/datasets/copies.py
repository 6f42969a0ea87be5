"""Copies among images: byte-identical files, and pictures that look the same."""

from __future__ import annotations

import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coattn.datasets.json_entries import check_regular, naming_archive

_HEAD = 1 << 16
_BLOCK = 1 << 20
_SIDE = 16  # of the thumbnails
NEAR = 4.0  # root mean square difference of two thumbnails, of 255, up to which pictures look the same
_ROWS = 512  # thumbnails that are compared at once


def find_copies(images: Mapping[str, Any]) -> dict[str, str]:
    """Find byte-identical files.

    Files are compared by size, then by the hash of their first 64 KiB, then by the hash of all bytes, so that few files
    are read.

    Args:
        images: image id to a path, a member of a zip archive, or an object that opens like a file.

    Returns:
        Image id to the smallest id of its copies, for images that have a copy.
    """
    candidates = [sorted(images)]
    for measure in (_size, _head, _digest):
        candidates = [same for ids in candidates for same in _alike(ids, images, measure)]
    return {image_id: ids[0] for ids in candidates for image_id in ids}


def _alike(ids: Iterable[str], images: Mapping[str, Any], measure: Callable[[Any], Hashable]) -> list[list[str]]:
    """The ids in groups of at least two whose measured values are equal; unreadable files are equal to none."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for image_id in ids:
        try:
            groups[measure(images[image_id])].append(image_id)
        except (OSError, ValueError):  # the command that reads the image names it
            continue
    return [group for group in groups.values() if len(group) > 1]


def _size(image: Any) -> int:
    if isinstance(image, Path):
        return image.stat().st_size
    if isinstance(image, zipfile.Path):
        return image.root.getinfo(image.at).file_size  # type: ignore[attr-defined]
    return -1  # an image of an array or a table; all of these are compared by their bytes


def _head(image: Any) -> bytes:
    check_regular(image)
    with naming_archive(image), image.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD)).digest()


def _digest(image: Any) -> bytes:
    digest = hashlib.sha256()
    with naming_archive(image), image.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def find_near_copies(training: Mapping[str, Any], evaluated: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Find evaluated images that look like a training image: re-encoded or resized copies.

    Each image is reduced to 16 x 16 pixels of three colors with Pillow. Two images look the same if the root mean
    square difference of these is at most 4 of 255. Crops, mirror images and changes of brightness are not found.

    Args:
        training, evaluated: image id to a path, a member of a zip archive, or an object that opens like a file.

    Returns:
        Evaluated image id to the most similar training image, for those that look the same; and the ids of images that
        could not be opened.
    """
    import numpy as np

    unreadable: list[str] = []
    known_ids, known = _thumbnails(training, unreadable)  # (N, 768)
    ids, thumbnails = _thumbnails(evaluated, unreadable)  # (M, 768)
    near: dict[str, str] = {}
    if not known_ids or not ids:
        return near, unreadable
    norms = (known**2).sum(1)
    limit = NEAR**2 * known.shape[1]
    for start in range(0, len(ids), _ROWS):
        block = thumbnails[start : start + _ROWS]
        # squared distances (rows, N): |a|^2 + |b|^2 - 2 a.b
        distances = (block**2).sum(1)[:, None] + norms[None] - 2 * block @ known.T
        best = distances.argmin(1)
        for row in np.flatnonzero(distances[np.arange(len(block)), best] <= limit):
            near[ids[start + int(row)]] = known_ids[int(best[row])]
    return near, unreadable


def _thumbnails(images: Mapping[str, Any], unreadable: list[str]) -> tuple[Sequence[str], Any]:
    import numpy as np
    from PIL import Image

    ids, rows = [], []
    for image_id, image in images.items():
        try:
            check_regular(image)
            with image.open("rb") as file, Image.open(file) as picture:
                picture.draft("RGB", (4 * _SIDE, 4 * _SIDE))  # JPEG is decoded at reduced size
                small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        except Exception:  # Pillow's decoders raise nearly anything on damaged files
            unreadable.append(image_id)
            continue
        ids.append(image_id)
        rows.append(np.asarray(small, np.float32).ravel())
    return ids, np.stack(rows) if rows else np.zeros((0, 3 * _SIDE**2), np.float32)
