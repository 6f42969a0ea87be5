"""Finding the image that a table means, and dividing images into splits."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from coattn._internal.files import files_below

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


class ImageFolder:
    """The images of a folder and its subfolders, found by name.

    Args:
        folder: where the images are.

    Raises:
        ValueError: it is no folder, or holds no image.
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
        """The id of the image meant by `name`: its path below the folder, for example "lung/scan 7.png".

        `name` may leave out the suffix or the subfolders, have other folders before it, and differ in case
        or in how accents are encoded (macOS writes them apart from their letters).

        Raises:
            ValueError: no image, or several, are called so.
        """
        found = self.get(name)
        if found is None:
            raise ValueError(f"there is no image {name!r} in {self.folder}")
        return found

    def get(self, name: str) -> str | None:
        """As `find`, but None if there is no such image.

        Raises:
            ValueError: several are called so.
        """
        wanted = name.replace("\\", "/").removeprefix("./")
        found = self._by_name.get(_key(wanted)) or self._by_name.get(_key(wanted.rsplit("/", 1)[-1]), [])
        exact = [image_id for image_id in found if wanted in (image_id, image_id.rpartition(".")[0])]
        candidates = exact or found
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            return None
        raise ValueError(f"image {name!r} may be {' or '.join(candidates[:3])} in {self.folder}; write it in full")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def hold_out(image_ids: Iterable[str], count: int, *, seed: int) -> set[str]:
    """A fixed choice of `count` images: those whose SHA-256 with the seed is smallest.

    It depends on nothing but the ids and the seed, whatever the order of a table.
    """
    order = sorted(set(image_ids), key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).digest())
    return set(order[:count])
