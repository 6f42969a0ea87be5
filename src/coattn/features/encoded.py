"""An image as a model sees it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as a model sees it, ready for any number of questions.

    Attributes:
        features: (R, D) float32; those of `Predictor.encode` are on its device, uploaded once for all questions.
        boxes: (R, 4) float32, x1 y1 x2 y2 in [0, 1] of the image; None if the feature store does not know them.
        size: width and height of the image in pixels; (0, 0) if not known.
        image: the image itself, or None when only its features were in a store.
    """

    features: Tensor
    boxes: Tensor | None
    size: tuple[int, int]
    image: Image.Image | None
