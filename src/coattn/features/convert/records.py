"""Check one record of a feature file: every array of an image that a store will hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coattn.features.convert.formats.base import FeatureSource, ImageRegions, SourceImage
from coattn.features.store.layout import DETECTION_DTYPES

_LONGEST_SIDE, _LARGEST_LABEL = 10**6, 2**31
_ROUNDING = 1.0  # pixels by which a box may leave its image before the record is refused


class ConvertedImage(NamedTuple):
    """A usable record: its regions with boxes in [0, 1] of the image, and how many boxes were cut at its border."""

    regions: ImageRegions
    cut_boxes: int


def read_record(source: FeatureSource, entry: SourceImage, *, clip_boxes: bool) -> ConvertedImage:
    """Read and check the record of one image.

    Raises:
        ValueError: the record cannot be used; the message says why, without the name of the file.
    """
    try:
        regions = source.read(entry)
    except (ValueError, MemoryError) as error:
        raise ValueError(_without_place(error, entry)) from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except Exception as error:  # arrays and pickles of unknown origin may hold anything
        raise ValueError(f"cannot be read ({type(error).__name__}: {error!s:.120})") from None
    features, boxes, size, *found = regions
    if not np.isfinite(features).all():
        number = int((~np.isfinite(features)).sum())
        raise ValueError(f"{number} of {features.size} values of its features are NaN or infinite")
    if max(size) > _LONGEST_SIDE:
        raise ValueError(f"its image has {size[0]} x {size[1]} pixels; the limit is {_LONGEST_SIDE} on a side")
    for kind, values in zip(DETECTION_DTYPES, found, strict=True):
        if values is not None and not (values.dtype.kind in "iuf" and (np.abs(values) < _LARGEST_LABEL).all()):
            raise ValueError(f"its {kind} are not numbers, or {_LARGEST_LABEL} or larger")
    if boxes is None:
        return ConvertedImage(regions, 0)
    if len(boxes) != len(features):
        raise ValueError(f"{len(features)} rows of features, but {len(boxes)} boxes")
    if boxes.shape[1] != 4:
        raise ValueError(f"its boxes are rows of {boxes.shape[1]} numbers, not 4")
    shares, cut = relative_boxes(boxes, size, clip=clip_boxes)
    return ConvertedImage(regions._replace(boxes=shares), cut)


def relative_boxes(boxes: np.ndarray, size: tuple[int, int], *, clip: bool) -> tuple[np.ndarray, int]:
    """Boxes in [0, 1] of the image, and how many were cut at its border.

    Boxes are taken as pixels, unless all their corners lie in [0, 1]: boxes within the first pixel of an image do not
    occur, so that they are parts of the image already.

    Args:
        boxes: (n, 4).
        size: width and height of the image in pixels; (0, 0) if unknown.
        clip: cut boxes however far they leave the image; otherwise by up to one pixel.

    Raises:
        ValueError: a box with NaN, an inverted box, or one that leaves the image.
    """
    for index in np.flatnonzero(~np.isfinite(boxes).all(axis=1)):
        raise ValueError(f"box {index} is {_show(boxes[index])}")
    for index in np.flatnonzero((boxes[:, :2] > boxes[:, 2:]).any(axis=1)):
        raise ValueError(
            f"box {index} is inverted: {_show(boxes[index])}, not x1 <= x2 and y1 <= y2 (is it x, y, width, height?)"
        )
    in_pixels = any(size) and boxes.max(initial=0) > 1
    scale = np.array([*size, *size], np.float32) if in_pixels else np.ones(4, np.float32)
    beyond = np.maximum(-boxes, boxes - scale).max(axis=1, initial=0)
    allowed = np.inf if clip else _ROUNDING if in_pixels else 0
    for index in np.flatnonzero(beyond > allowed):
        of = f"of {size[0]} x {size[1]} pixels " if in_pixels else ""
        raise ValueError(
            f"box {index}, {_show(boxes[index])}, lies outside of its image {of}by {beyond[index]:g} (are width and "
            "height swapped?); --clip-boxes cuts such boxes"
        )
    return np.clip(boxes / scale, 0, 1), int((beyond > 0).sum())


def _show(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _without_place(error: Exception, entry: SourceImage) -> str:
    """The text of an error without the name of the file, which messages put before it."""
    text = str(error)
    for place in (entry.where, *map(str, entry.files)):
        text = text.removeprefix(f"{place}: ")
    return text
