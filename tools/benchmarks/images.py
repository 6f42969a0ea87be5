"""Images to extract features from, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw_images(folder: Path, number: int) -> dict[str, Path]:
    """JPEGs of COCO's size, 640 x 480, that take about as long to decode as photos (about 100 kB each); id to path."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"{index:05}": folder / f"{index:05}.jpg" for index in range(number)}
    for path in paths.values():
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
        noise = rng.normal(scale=10, size=(480, 640, 1))
        pixels = (np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return paths
