"""An image as a model sees it.

Letters: B images, R regions, D width of a feature row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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

    @property
    def array(self) -> np.ndarray:
        """The features (R, D) in numpy, float32."""
        return self.features.float().cpu().numpy()


def image_sizes(images: Sequence[EncodedImage]) -> Tensor | None:
    """Widths and heights (B, 2) in pixels, float32; None if one of them is unknown."""
    sizes = [image.size for image in images]
    return torch.tensor(sizes, dtype=torch.float32) if all(width and height for width, height in sizes) else None
