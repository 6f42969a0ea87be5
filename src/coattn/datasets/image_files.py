"""Images of a folder, found by name; images of an array; and the choice of images that are held out."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from coattn._internal.files import IMAGE_SUFFIXES, files_below


class ArrayImage:
    """An image of an array (H, W, 3), uint8, that opens like a PNG file."""

    suffix = ".png"

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def open(self, mode: str = "rb") -> BinaryIO:
        """The image as PNG; `mode` can only be "rb"."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self.pixels).save(content, "PNG")
        content.seek(0)
        return content


class ImageFolder:
    """The images of a folder and its subfolders, found by name.

    Args:
        folder: where the images are.

    Raises:
        ValueError: `folder` is not a folder, or holds no image.
        OSError: a folder in it may not be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{folder} is not a folder; --images takes the folder of the images")
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in files_below(self.folder):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            image_id = path.relative_to(self.folder).as_posix()
            for name in {image_id, image_id.removesuffix(path.suffix), path.name, path.stem}:
                self._by_name[_key(name)].append(image_id)
        if not self._by_name:
            raise ValueError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")

    def find(self, name: str) -> str:
        """Return the id of the image `name`: its path below the folder, for example "lung/scan 7.png".

        `name` may leave out the suffix or the subfolders, begin with other folders, and differ in case or in the
        encoding of accents (macOS separates them from their letters).

        Raises:
            ValueError: no image or several images match.
        """
        found = self.get(name)
        if found is None:
            raise ValueError(f"there is no image {name!r} in {self.folder}")
        return found

    def get(self, name: str) -> str | None:
        """Like `find`, but returns None if there is no such image.

        Raises:
            ValueError: several images match.
        """
        wanted = name.replace("\\", "/").removeprefix("./")
        found = self._by_name.get(_key(wanted)) or self._by_name.get(_key(wanted.rsplit("/", 1)[-1]), [])
        exact = [image_id for image_id in found if wanted in (image_id, image_id.rpartition(".")[0])]
        candidates = exact or found
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            return None
        raise ValueError(f"image {name!r} may be {' or '.join(candidates[:3])} in {self.folder}; write its full path")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def hold_out(image_ids: Iterable[str], count: int, *, seed: int) -> set[str]:
    """Choose `count` images: those whose SHA-256 with the seed is smallest.

    The choice depends on the ids and the seed only, not on the order of the images.
    """
    order = sorted(set(image_ids), key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).digest())
    return set(order[:count])
