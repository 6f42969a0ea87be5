"""A picture of the regions of one image: its numbered boxes, and a list of their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from coattn.features.store.manifest import FLIP
from coattn.features.store.reader import FeatureStore, StoredRegions
from coattn.visualization.canvas import Box, Canvas, shortened, text_width
from coattn.visualization.color import INK, MUTED

MARGIN, IMAGE, LEGEND, LINE = 24, 760, 300, 23
COLORS = ("#1f6fb4", "#d95f0e", "#2a8c4a", "#c7252e", "#7d54b2", "#8c5a3c", "#c2488f", "#4f5b66", "#8a8c12", "#128f9e")
_MOST_NUMBERED = 24  # more would hide the image


def draw_regions(
    store: FeatureStore,
    image_id: str,
    *,
    photo: Image.Image | None = None,
    names: Sequence[str] | None = None,
    attribute_names: Sequence[str] | None = None,
) -> Image.Image:
    """Draw the boxes of an image, the best scored (or the first) with their numbers.

    Args:
        store: the feature store.
        image_id: one of its images.
        photo: the image itself. Without it an empty sheet of its shape is drawn.
        names: the names of the labels, by number.
        attribute_names: the names of the attributes, by number.

    Raises:
        ValueError: the store does not hold the image, or `photo` has another shape than its features were made of.
    """
    index = store.index(image_id)
    rows = store.read(index)
    name = store.image_ids[index]
    width, height = _shape(rows, photo, name)
    scale = min(IMAGE / width, IMAGE / height)
    page = Canvas(2 * MARGIN + width * scale + MARGIN + LEGEND)
    panel = Box(MARGIN, MARGIN + 34, width * scale, height * scale)
    size = f"{rows.size[0]} x {rows.size[1]} pixels" if rows.size.all() else "size not known"
    title = f"{name}: {len(rows.boxes)} regions of width {store.dim}, {size}"
    page.text(MARGIN, MARGIN + 10, shortened(title, 17, page.width - 2 * MARGIN, weight="bold"), 17, weight="bold")
    if photo is None:
        page.pixels(panel, np.full((1, 1, 3), 0.93))
    else:
        photo = ImageOps.mirror(photo) if name.endswith(FLIP) else photo
        page.image(panel, photo.convert("RGB"))
    order = np.argsort(-rows.scores, kind="stable") if rows.scores is not None else np.arange(len(rows.boxes))
    numbered = order[:_MOST_NUMBERED]
    for number in order[_MOST_NUMBERED:]:
        page.outline(_inside(panel, rows.boxes[number]), "#9aa5b0", 0.8)
    for rank, number in enumerate(numbered[::-1]):  # the best on top
        color = COLORS[(len(numbered) - 1 - rank) % len(COLORS)]
        page.outline(_inside(panel, rows.boxes[number]), "white", 3.2)
        page.outline(_inside(panel, rows.boxes[number]), color, 2)
    tags: list[Box] = []
    for rank, number in enumerate(numbered):
        tags.append(_tag(page, panel, rows.boxes[number], str(number), COLORS[rank % len(COLORS)], tags))
    left = panel.x + panel.width + MARGIN
    bottom = _legend(page, left, panel.y, rows, numbered, names, attribute_names)
    return page.finish(max(panel.y + panel.height, bottom) + MARGIN)


def _shape(rows: StoredRegions, photo: Image.Image | None, name: str) -> tuple[int, int]:
    """Width and height of the image, as far as they are known."""
    width, height = (int(side) for side in rows.size)
    if photo is None:
        return (width, height) if width and height else (1, 1)
    if width and height and abs(photo.width * height / (photo.height * width) - 1) > 0.02:
        raise ValueError(
            f"the photo has {photo.width} x {photo.height} pixels, the features of image {name!r} were made of one of "
            f"{width} x {height}; give the photo of that image"
        )
    return photo.size


def _tag(page: Canvas, panel: Box, box: np.ndarray, text: str, color: str, others: Sequence[Box]) -> Box:
    """The number of a box at its top left corner, within the image, and below the tags that are there already."""
    region = _inside(panel, box)
    width = text_width(text, 12, "bold") + 9
    x = min(max(region.x, panel.x), panel.x + panel.width - width)
    y = min(max(region.y, panel.y), panel.y + panel.height - 17)
    while any(abs(x - other.x) < max(width, other.width) and abs(y - other.y) < 17 for other in others):
        y += 3
    page.chip(Box(x, y, width, 17), color, radius=2)
    page.text(x + width / 2, y + 8.5, text, 12, color="white", weight="bold", align="center")
    return Box(x, y, width, 17)


def _legend(
    page: Canvas,
    x: float,
    y: float,
    rows: StoredRegions,
    numbered: np.ndarray,
    names: Sequence[str] | None,
    attribute_names: Sequence[str] | None,
) -> float:
    """Number, name and score of the numbered regions, one a line; returns the y below."""
    for rank, number in enumerate(numbered):
        page.chip(Box(x, y + 2, 30, 18), COLORS[rank % len(COLORS)], radius=2)
        page.text(x + 15, y + 11, str(number), 12, color="white", weight="bold", align="center")
        words = [
            _name(values[number], known, kind)
            for values, known, kind in (
                (rows.attributes, attribute_names, "attribute"),
                (rows.labels, names, "label"),
            )
            if values is not None
        ]
        area = float(np.prod(rows.boxes[number, 2:] - rows.boxes[number, :2]))
        text = " ".join(words) or f"{100 * area:.1f} % of the image"
        score = "" if rows.scores is None else f"{rows.scores[number]:.2f}"
        page.text(x + 40, y + 11, shortened(text, 14, LEGEND - 90), 14, color=INK)
        page.text(x + LEGEND, y + 11, score, 13, color=MUTED, align="right")
        y += LINE
    if rest := len(rows.boxes) - len(numbered):
        page.text(x, y + 11, f"and {rest} more, in gray", 13, color=MUTED)
        y += LINE
    return y


def _name(value: int, names: Sequence[str] | None, kind: str) -> str:
    """The name of a number: the first of several words for it, as in "headboard,head board"."""
    return names[value].partition(",")[0] if names is not None and 0 <= value < len(names) else f"{kind} {value}"


def _inside(panel: Box, box: np.ndarray) -> Box:
    x1, y1, x2, y2 = box.tolist()
    width, height = panel.width, panel.height
    return Box(panel.x + x1 * width, panel.y + y1 * height, (x2 - x1) * width, (y2 - y1) * height)
