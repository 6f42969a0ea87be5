"""Regions of one image from a dict, with the keys that MMF, ViLBERT, MILVLG and VL-T5 use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coattn.features.convert.formats.arrays import as_rows, detections, from_base64
from coattn.features.convert.formats.base import ImageRegions, number
from coattn.features.extract.extractors.base import grid_boxes

_BOXES = ("bbox", "boxes", "bboxes")
_WIDTHS = ("image_width", "image_w", "img_w", "width")
_HEIGHTS = ("image_height", "image_h", "img_h", "height")


def regions_from_dict(item: Mapping[str, Any]) -> ImageRegions:
    """Regions from a dict with `features`, and as far as known boxes, the image's size, classes and scores.

    Features and boxes may be arrays, or their bytes in base64 (float32).

    Raises:
        ValueError: no features; an array of a wrong shape; boxes in pixels of an image of unknown size. The message
            names the keys that were found.
    """
    keys = f"its keys are {', '.join(sorted(map(str, item)))}"
    if "features" not in item:
        raise ValueError(f"holds no features; {keys}")
    boxes = _first(item, _BOXES)
    count = item.get("num_boxes")
    if isinstance(item["features"], str | bytes):
        features = _decoded(item["features"], "features", number(count, "num_boxes"))
    elif boxes is None:
        features, grid = from_array(item["features"])
        return ImageRegions(features, grid, _size(item), **detections(item))
    else:
        features = as_rows(item["features"], "features")
    if isinstance(boxes, str | bytes):
        boxes = _decoded(boxes, "boxes", len(features))
    if boxes is not None:
        boxes = as_rows(boxes, "boxes")
        if boxes.size and boxes.max() > 1 and _size(item) == (0, 0):
            raise ValueError(f"has boxes in pixels, but no width and height of its image; {keys}")
    return ImageRegions(features, boxes, _size(item), **detections(item))


def from_array(value: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Features (n, D) and their boxes from a bare array.

    (n, D) and (1, n, D) are regions whose boxes are unknown; (H, W, D) and (1, H, W, D) are the cells of a grid.
    """
    array = np.asarray(value)
    if array.ndim in (3, 4) and len(array) == 1:
        array = array[0]
    if array.ndim != 3:
        return as_rows(array, "features"), None
    rows, columns, dim = array.shape
    return as_rows(array.reshape(-1, dim), "features"), grid_boxes(rows, columns)


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _size(item: Mapping[str, Any]) -> tuple[int, int]:
    width, height = _first(item, _WIDTHS), _first(item, _HEIGHTS)
    if width is None and height is None:
        return (0, 0)
    return number(width, "the image's width", least=1), number(height, "the image's height", least=1)


def _decoded(text: str | bytes, name: str, rows: int) -> np.ndarray:
    values = from_base64(text, name, "<f4")
    if values.size % max(rows, 1) or (values.size and not rows):
        raise ValueError(f"{name} are {values.size} numbers, which is not a multiple of its {rows} boxes")
    return values.reshape(rows, values.size // rows if rows else 0)
