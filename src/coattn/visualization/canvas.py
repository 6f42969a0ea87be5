"""A page to draw on, laid out in pixels with y downwards, without matplotlib's global state."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

INK = "#1d2733"  # of text, unless said otherwise
SCALE = 1.6  # output pixels per layout pixel


class Box(NamedTuple):
    """A rectangle on the page, in pixels; `x`, `y` is its top left corner."""

    x: float
    y: float
    width: float
    height: float


class Canvas:
    """A page of a fixed width, cut at the end to the height that was used."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.figure = Figure(dpi=100 * SCALE, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")

    def text(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """One line of text with its middle at `y`; `size` is the font's, in pixels."""
        style = {"color": INK, "va": "center_baseline"} | style
        self.axes.text(x, y, text, fontsize=size * 0.72, parse_math=False, **style)

    def chip(self, box: Box, color: Any, *, radius: float = 5) -> None:
        """A filled rectangle with round corners."""
        style = f"round,pad=0,rounding_size={min(radius, box.width / 2, box.height / 2)}"
        patch = FancyBboxPatch(box[:2], box.width, box.height, boxstyle=style, facecolor=color, edgecolor="none")
        self.axes.add_patch(patch)

    def outline(self, box: Box, color: Any, thickness: float) -> None:
        """An empty rectangle; `thickness` in pixels."""
        patch = Rectangle(box[:2], box.width, box.height, fill=False, edgecolor=color, linewidth=thickness * 0.72)
        self.axes.add_patch(patch)

    def pixels(self, box: Box, pixels: np.ndarray, *, interpolation: str = "antialiased") -> None:
        """An array (h, w, 3 or 4) in [0, 1] stretched over a rectangle."""
        extent = (box.x, box.x + box.width, box.y + box.height, box.y)
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation=interpolation)

    def finish(self, height: float) -> Image.Image:
        """The picture, `height` pixels tall."""
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        self.figure.set_size_inches(self.width / 100, height / 100)
        page = FigureCanvasAgg(self.figure)
        page.draw()
        return Image.fromarray(np.asarray(page.buffer_rgba())[..., :3].copy())


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in pixels; `size` as in `Canvas.text`."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), ismath=False)[0]


def shortened(text: str, size: float, width: float, *, weight: str = "normal") -> str:
    """`text`, cut with an ellipsis where it is wider than `width`."""
    if text_width(text, size, weight) <= width:
        return text
    lengths = range(1, len(text))
    return text[: bisect_right(lengths, width, key=lambda length: text_width(text[:length] + "…", size, weight))] + "…"


def wrapped(text: str, size: float, width: float, *, weight: str = "normal") -> list[str]:
    """`text` in lines no wider than `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width, weight=weight))
    return [line for line in lines if line]
