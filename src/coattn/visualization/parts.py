"""Parts of the pictures of explanations. Each draws at a place on the page and returns the y below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from coattn.explain.answers import UNSURE, Answers
from coattn.explain.maps import Explanation
from coattn.visualization.canvas import Box, Canvas, Weight, shortened, text_width, wrapped
from coattn.visualization.color import (
    AMBER,
    BLUE,
    FAINT,
    INK,
    MUTED,
    PALE_AMBER,
    PALE_BLUE,
    colors,
    heat_map,
    strengths,
)

MOST_STRETCHED = 12  # an image that is longer than this many times its other side is drawn with this ratio


class Values(NamedTuple):
    """The values that color the words, regions or cells of a picture.

    Attributes:
        values: (n,) or (n, m).
        uniform: the share of each in a uniform map, a number or (n,); None for values for (+) and against (-).
        scale: the value of the strongest color, see `scale_of`.
    """

    values: np.ndarray
    uniform: np.ndarray | float | None
    scale: float

    @property
    def strengths(self) -> np.ndarray:
        """The values in [-1, 1]; 0 is drawn neutral."""
        return strengths(self.values, self.uniform, self.scale)

    def label(self, value: float) -> str:
        """A value as text: a share in percent, or signed points of probability."""
        if self.uniform is not None:
            return percent(value)
        points = round(100 * value)
        return f"{points:+d}" if points else "0"


def percent(share: float) -> str:
    """A share as text."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def shape(explanation: Explanation) -> tuple[float, float]:
    """Width and height to draw the image with: its own, unless not known or extreme."""
    width, height = explanation.image.size if explanation.image is not None else explanation.size
    if width <= 0 or height <= 0:
        return 1, 1
    return max(width, height / MOST_STRETCHED), max(height, width / MOST_STRETCHED)


def fitted(explanation: Explanation, box: Box) -> Box:
    """The largest box of the image's shape in `box`, at its top left."""
    width, height = shape(explanation)
    scale = min(box.width / width, box.height / height)
    return box._replace(width=width * scale, height=height * scale)


def inside(box: Box, region: np.ndarray) -> Box:
    """A region's box on the page, from [0, 1] of the image that `box` shows, cut to the image."""
    x1, y1, x2, y2 = np.clip(region, 0, 1).tolist()
    return Box(box.x + x1 * box.width, box.y + y1 * box.height, (x2 - x1) * box.width, (y2 - y1) * box.height)


def draw_lines(canvas: Canvas, x: float, y: float, width: float, text: str, *, size: float = 12.5) -> float:
    """Small gray text."""
    for line in wrapped(text, size, width):
        canvas.text(x, y + size / 2, line, size, color=MUTED)
        y += size * 1.5
    return y


def draw_heading(canvas: Canvas, x: float, y: float, text: str) -> None:
    """A small heading."""
    canvas.text(x, y + 6, text, 10.5, color=MUTED, weight="bold")


def draw_question(
    canvas: Canvas, x: float, y: float, width: float, explanation: Explanation, values: Values | None, *, size: float
) -> float:
    """The question, and below it its words as chips colored by `values` (W,); unknown words are gray and dashed."""
    for text in wrapped(explanation.question, size, width, weight="bold"):
        canvas.text(x, y + size / 2, text, size, weight="bold")
        y += size * 1.35
    if values is None and all(word.known for word in explanation.words):
        return y + 10
    size = max(size * 0.68, 11.5)
    y += size * 0.4
    left, height = x, size * 1.75
    for place, word in enumerate(explanation.words):
        if word.special and (values is None or values.uniform is None):
            continue
        number = "unknown" if not word.known else "" if values is None else values.label(values.values[place])
        strength = 0.0 if values is None or not word.known else float(values.strengths[place])
        text = shortened(word.text, size, width - size)
        chip_width = max(text_width(text, size), text_width(number, size * 0.72)) + size
        if left > x and left + chip_width > x + width:
            left, y = x, y + height + size * 1.6
        color = FAINT if not word.known else colors(np.array(strength))
        canvas.chip(Box(left, y, chip_width, height), color, dashed=not word.known)
        ink = "white" if abs(strength) > 0.6 else INK
        canvas.text(left + chip_width / 2, y + height / 2, text, size, align="center", color=ink)
        below = AMBER if not word.known else MUTED
        canvas.text(left + chip_width / 2, y + height + size * 0.6, number, size * 0.72, align="center", color=below)
        left += chip_width + size * 0.45
    return y + height + size * 2.0


def draw_answers(
    canvas: Canvas, x: float, y: float, width: float, answers: Answers, *, heading: bool = True, most: int | None = None
) -> float:
    """The answers as bars with their confidence, and what speaks against believing them."""
    if heading:
        draw_heading(canvas, x, y, "ANSWER AND CONFIDENCE")
        y += 28
    if answers.withheld:
        canvas.text(x, y + 8, UNSURE, 17, weight="bold")
        y += 32
    for rank, (text, confidence) in enumerate(answers[:most]):
        value = percent(confidence)
        weight: Weight = "normal" if rank else "bold"
        canvas.text(x, y + 8, shortened(text, 15, width - 64, weight=weight), 15, weight=weight)
        canvas.text(x + width, y + 8, value, 13, align="right", color=INK if rank == 0 else MUTED)
        canvas.chip(Box(x, y + 23, width, 7), FAINT, radius=3.5)
        if confidence > 0.005:
            canvas.chip(Box(x, y + 23, max(width * confidence, 7), 7), PALE_BLUE if rank else BLUE, radius=3.5)
        y += 50
    if answers.reasons:
        lines = [line for reason in answers.reasons for line in wrapped(reason, 12.5, width - 24)]
        height = 18 * len(lines) + 16
        canvas.chip(Box(x, y, width, height), PALE_AMBER, radius=6)
        canvas.chip(Box(x, y, 4, height), AMBER, radius=1)
        for number, line in enumerate(lines):
            canvas.text(x + 14, y + 17 + 18 * number, line, 12.5, color=AMBER)
        y += height + 12
    return y - 12


def draw_image(
    canvas: Canvas,
    box: Box,
    explanation: Explanation,
    values: Values | None,
    *,
    owner: int | None = None,
    num_outlined: int = 0,
    numbered: Sequence[int] = (),
) -> float:
    """The image, paler than it is, under the heat of `values` (R,); outstanding regions have boxes and numbers.

    Args:
        canvas: the page.
        box: where the image is drawn.
        explanation: its image and boxes; without an image an empty sheet with the boxes.
        values: of the regions; None draws no heat.
        owner: a region to outline in blue.
        num_outlined: how many regions are outlined: those that differ most from the middle one, none without an effect
            and none that is only weaker than the middle one.
        numbered: regions whose number is written into their box.
    """
    if explanation.image is None:
        canvas.pixels(box, np.full((1, 1, 3), 0.93))
        for region in explanation.boxes if explanation.boxes.any() else ():
            canvas.outline(inside(box, region), "#c4ccd4", 0.8)
    else:
        photo = explanation.image.convert("RGB")
        photo.thumbnail((1600, 1600))
        gray = Image.merge("RGB", [photo.convert("L").point(lambda value: int(64 + 0.7 * value))] * 3)
        canvas.image(box, Image.blend(photo, gray, 0.45))
    if values is not None and explanation.boxes.any():  # boxes of zeros are not known
        heat = heat_map(
            explanation.boxes, values.strengths, max(round(box.height / 2), 1), max(round(box.width / 2), 1)
        )
        alpha = 0.62 * np.abs(heat) ** 0.7
        canvas.pixels(box, np.concatenate((colors(heat), alpha[..., None]), -1))
        effect, middle = np.abs(values.strengths), float(np.median(values.strengths))
        difference = np.abs(values.strengths - middle)  # equal regions have no outline
        weaker = (values.strengths * middle > 0) & (effect < abs(middle))
        visible = (np.minimum(effect, difference) >= 0.05) & ~weaker
        outlined = [number for number in np.argsort(-difference, kind="stable")[:num_outlined] if visible[number]]
        labels: list[Box] = []
        for number in outlined[::-1]:
            region = inside(box, explanation.boxes[number])
            canvas.outline(region, "white", 3.4)
            canvas.outline(region, INK, 1.2)
        for number in outlined:
            region = inside(box, explanation.boxes[number])
            labels.append(_draw_label(canvas, region, box, values.label(values.values[number]), labels))
    for number in numbered:
        region = inside(box, explanation.boxes[number])
        canvas.outline(region, "white", 2)
        canvas.outline(region, INK, 0.8)
        _draw_label(canvas, region, box, str(number), [])
    if owner is not None:
        canvas.outline(inside(box, explanation.boxes[owner]), "white", 5)
        canvas.outline(inside(box, explanation.boxes[owner]), BLUE, 3)
    return box.y + box.height


def _draw_label(canvas: Canvas, region: Box, image: Box, text: str, others: Sequence[Box]) -> Box:
    """A label in the corner of a region, or just outside a region that it would cover, clear of the other labels."""
    size = 12 if image.width > 400 else 10.5
    width, height = text_width(text, size) + size * 0.8, size * 1.6
    x, y = region.x, region.y
    if region.width < 1.6 * width or region.height < 2 * height:
        y = y - height if y - height >= image.y else y + region.height
    x = max(min(x, image.x + image.width - width), image.x)
    while any(abs(x - other.x) < max(width, other.width) and abs(y - other.y) < height for other in others):
        y += 2
    canvas.chip(Box(x, y, width, height), INK, radius=1.5)
    canvas.text(x + size * 0.4, y + height / 2, text, size, color="white")
    return Box(x, y, width, height)


def draw_legend(canvas: Canvas, x: float, y: float, values: Values) -> float:
    """The scale of colors: from against to for, or from the uniform share to the strongest color."""
    signed = values.uniform is None
    uniform = float(np.mean(values.uniform)) if values.uniform is not None else 0.0
    if signed:
        left, right = f"against {-100 * values.scale:.0f}", f"for {100 * values.scale:+.0f} points of probability"
    else:
        left, right = f"uniform share {percent(uniform)} or less", percent(min(values.scale * uniform, 1))
    canvas.text(x, y + 6, left, 12, color=MUTED)
    x += text_width(left, 12) + 8
    canvas.pixels(Box(x, y, 170, 12), colors(np.linspace(-1.0 if signed else 0.0, 1, 171))[None])
    canvas.outline(Box(x, y, 170, 12), "#c4ccd4", 0.8)
    canvas.text(x + 178, y + 6, right, 12, color=MUTED)
    return y + 24


def draw_table(
    canvas: Canvas, box: Box, rows: Sequence[str], columns: Sequence[str], values: Values, steps: Sequence[int]
) -> float:
    """Values (n, m) as a table. Every `steps`-th row and column is labeled, by name or number."""
    size = 13
    labels = [
        {place: shortened(names[place] if names else str(place), size, 110) for place in range(0, count, step)}
        for names, count, step in zip((rows, columns), values.values.shape, steps, strict=True)
    ]
    left, above = (max(text_width(name, size) for name in names.values()) + 10 for names in labels)
    side = min((box.width - left) / values.values.shape[1], 46)
    x, y = box.x + left, box.y + above
    strength = values.strengths
    height, width = side * strength.shape[0], side * strength.shape[1]
    canvas.pixels(Box(x, y, width, height), colors(strength), smooth=False)
    for place, name in labels[0].items():
        canvas.text(x - 8, y + side * (place + 0.5), name, size, align="right")
    for place, name in labels[1].items():
        canvas.text(x + side * (place + 0.5), y - 8, name, size, upwards=True)
    if side >= 34:
        for (row, column), weight in np.ndenumerate(values.values):
            ink = "white" if strength[row, column] > 0.6 else INK
            number = f"{100 * weight:.0f}"
            canvas.text(x + side * (column + 0.5), y + side * (row + 0.5), number, 11.5, align="center", color=ink)
    return y + height
