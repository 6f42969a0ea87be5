"""The extractor `objects`: connected patches of one color as regions. For drawn scenes; no pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from coattn.features.extract.extractors.base import Regions, check_size

_DIM = 13


class Objects:
    """The objects of a drawn scene, each described by 13 plain numbers.

    Colors are rounded to `levels` per channel; the most frequent color is the background; an object is a patch of
    pixels of one other color that touch by their sides. An image without any is one region, the whole of it.

    - 0-2: mean red, green and blue, in [0, 1]
    - 3-4: center of mass x, y, as fractions of the image's width and height, like all further lengths and areas
    - 5-6: width and height of the bounding box
    - 7: area
    - 8: share of the bounding box that is filled: 1 for an upright rectangle, pi / 4 for an ellipse
    - 9-10: standard deviation of the pixels' x, of their y
    - 11: correlation of x and y, in [-1, 1]: how far the object leans
    - 12: area relative to the ellipse with the same second moments: 1 for an ellipse, 3 / pi for a rectangle

    Args:
        levels: values per color channel that are distinguished; pure colors lie in the middle of their bins.
        min_area: smaller patches, in parts of the image, are left out.
        max_objects: largest number of objects. The largest ones are kept, in order of size.
        max_side: larger images are shrunk to this longer side, pixels being dropped, not mixed.

    Raises:
        ValueError: a setting out of its range.
    """

    dim = _DIM
    weights = None
    parallel = False

    def __init__(self, levels: int = 5, min_area: float = 0.001, max_objects: int = 32, max_side: int = 256) -> None:
        check_size("objects", (max_side,))
        if not 2 <= levels <= 256 or not 0 <= min_area < 1 or max_objects < 1 or max_side < 1:
            raise ValueError(
                "objects: levels must be 2 to 256, min_area in [0, 1), max_objects and max_side positive, "
                f"got {levels}, {min_area}, {max_objects} and {max_side}"
            )
        self.levels, self.min_area, self.max_objects, self.max_side = levels, min_area, max_objects, max_side
        self.num_regions = max_objects

    @property
    def record(self) -> dict[str, Any]:
        """Name and settings of this extractor."""
        settings = {name: getattr(self, name) for name in ("levels", "min_area", "max_objects", "max_side")}
        versions = {"pillow": PIL.__version__, "numpy": np.__version__}
        return {"name": "objects", "settings": settings, "weights": None, "versions": versions}

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Shrink larger images; (height, width, 3) uint8."""
        if max(image.size) > self.max_side:
            scale = self.max_side / max(image.size)
            width, height = (max(1, round(scale * side)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(image)

    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        return [self._describe(image) for image in pixels]

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Describe RGB images of any size."""
        return self.describe([self.prepare(image) for image in images])

    def _describe(self, image: np.ndarray) -> Regions:
        height, width, _ = image.shape
        colors = (image.astype(np.int32) * (self.levels - 1) + 127) // 255 @ [self.levels**2, self.levels, 1]
        background = np.bincount(colors.ravel()).argmax()
        runs = find_runs(colors)
        runs = runs.take(runs.colors != background)
        labels = connect_runs(runs)
        areas = np.bincount(labels, runs.stop - runs.start)
        large = np.flatnonzero(areas >= max(1, self.min_area * height * width))
        chosen = large[np.argsort(-areas[large], kind="stable")][: self.max_objects]
        if len(chosen) == 0:  # the whole image, background or not
            rows = np.arange(height)
            runs = Runs(rows, np.zeros_like(rows), np.full_like(rows, width), np.zeros_like(rows))
            labels, chosen = np.zeros_like(rows), np.zeros(1, np.int64)
        place = np.full(max(labels.max(), chosen.max()) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[labels] >= 0
        return _measure(image, runs.take(kept), place[labels[kept]])


class Runs(NamedTuple):
    """Stretches of one color in a row of pixels: the row, columns `start` to before `stop`, the color; (N,) each."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    colors: np.ndarray

    def take(self, chosen: np.ndarray) -> Runs:
        """Some of them."""
        return Runs(*(values[chosen] for values in self))


def find_runs(colors: np.ndarray) -> Runs:
    """All runs of an image (height, width) of integers, row by row."""
    width = colors.shape[1]
    flat = colors.ravel()
    begins = np.empty(flat.size, bool)
    begins[1:] = flat[1:] != flat[:-1]
    begins[::width] = True
    start = np.flatnonzero(begins)
    stop = np.append(start[1:], flat.size)
    row = start // width
    return Runs(row, start - row * width, stop - row * width, flat[start])


def connect_runs(runs: Runs) -> np.ndarray:
    """Number the patches that runs of one color form where they overlap from row to row: (N,) int64 from 0.

    Patches are numbered in the order of their first runs.
    """
    upper, lower = _touching(runs)
    same = runs.colors[upper] == runs.colors[lower]
    upper, lower = upper[same], lower[same]
    # Union-find: every run points to an earlier run of its patch or to itself. Each round joins the roots of touching
    # runs, the later to the earlier, and lets every run point to its root.
    root = np.arange(len(runs.row))
    while True:
        a, b = root[upper], root[lower]
        if np.array_equal(a, b):
            break
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root[root], root):
            root = root[root]
    return np.unique(root, return_inverse=True)[1].astype(np.int64)


def _touching(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of runs of which one lies directly below the other and shares a column with it."""
    # With positions counted through all rows, the runs of a row below that overlap a run are neighbors in order.
    width = int(runs.stop.max(initial=0)) + 1
    start, stop = runs.row * width + runs.start, runs.row * width + runs.stop
    first = np.searchsorted(stop, start + width, side="right")
    counts = np.searchsorted(start, stop + width, side="left") - first
    upper = np.repeat(np.arange(len(start)), counts)
    before = np.cumsum(counts) - counts
    return upper, np.repeat(first - before, counts) + np.arange(counts.sum())


def _measure(image: np.ndarray, runs: Runs, labels: np.ndarray) -> Regions:
    """Features and boxes of the objects 0 to max(labels) that `runs` make up."""
    height, width, _ = image.shape
    num_objects = int(labels.max()) + 1
    length = (runs.stop - runs.start).astype(np.float64)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels, values, minlength=num_objects)

    # A pixel is a square of side 1: its center is at + 0.5, and 1/12 is its own variance along each axis.
    middle, y = (runs.start + runs.stop) / 2, runs.row + 0.5
    area = total(length)
    center_x, center_y = total(length * middle) / area, total(length * y) / area
    across, down = middle - center_x[labels], y - center_y[labels]
    variance_x = total(length * (across**2 + length**2 / 12)) / area
    variance_y = total(length * down**2) / area + 1 / 12
    covariance = total(length * across * down) / area
    determinant = np.maximum(variance_x * variance_y - covariance**2, 1e-12)

    sums = np.zeros((height, width + 1, 3))
    np.cumsum(image, axis=1, out=sums[:, 1:])
    by_run = sums[runs.row, runs.stop] - sums[runs.row, runs.start]  # (N, 3)
    color = [total(by_run[:, channel]) / (255 * area) for channel in range(3)]

    corners = np.stack([np.full(num_objects, limit) for limit in (width, height, 0, 0)])
    for extreme, place, values in zip(
        (np.minimum, np.minimum, np.maximum, np.maximum),
        corners,
        (runs.start, runs.row, runs.stop, runs.row + 1),
        strict=True,
    ):
        extreme.at(place, labels, values)
    box_width, box_height = corners[2] - corners[0], corners[3] - corners[1]
    features = np.stack(
        [
            *color,
            center_x / width,
            center_y / height,
            box_width / width,
            box_height / height,
            area / (width * height),
            area / (box_width * box_height),
            np.sqrt(variance_x) / width,
            np.sqrt(variance_y) / height,
            covariance / np.sqrt(variance_x * variance_y),
            area / (4 * math.pi * np.sqrt(determinant)),
        ],
        axis=1,
    )
    boxes = corners.T / [width, height, width, height]
    return Regions(features.astype(np.float32), boxes.astype(np.float32))
