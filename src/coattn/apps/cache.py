"""Encoded images by the hash of their bytes, so that further questions about an image cost no extraction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_IMAGES, MAX_BYTES = 4096, 1 << 29


class ImageCache:
    """Keeps the encoded images that were used last, up to a number of images and of bytes.

    Args:
        size_of: the bytes that an encoded image takes.
        max_images: the most images that are kept.
        max_bytes: the most bytes that all of them take together.
    """

    def __init__(
        self, size_of: Callable[[Any], int], *, max_images: int = MAX_IMAGES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._size_of, self._max_images, self._max_bytes = size_of, max_images, max_bytes
        self._images: OrderedDict[str, Any] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def get(self, image_id: str) -> Any | None:
        """The encoded image, which counts as used now; None if it is not kept."""
        if image_id not in self._images:
            return None
        self._images.move_to_end(image_id)
        return self._images[image_id]

    def put(self, image_id: str, image: Any) -> None:
        """Keep an encoded image, and drop those that were not used for longest."""
        if image_id in self._images:
            self.num_bytes -= self._size_of(self._images.pop(image_id))
        self._images[image_id] = image
        self.num_bytes += self._size_of(image)
        while len(self._images) > 1 and (len(self._images) > self._max_images or self.num_bytes > self._max_bytes):
            _, dropped = self._images.popitem(last=False)
            self.num_bytes -= self._size_of(dropped)
