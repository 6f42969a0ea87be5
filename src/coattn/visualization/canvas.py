"""A page to draw on with Pillow, laid out in pixels with y downwards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from coattn.visualization.color import INK

SCALE = 1.6  # output pixels per layout pixel
_FINE = 2 * SCALE  # everything is drawn twice as large and then reduced, which smooths edges

# Pillow brings one font. Letters that it lacks are taken from the first of these that the system has.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "msyh.ttc",
)
Weight = Literal["normal", "bold"]


class Box(NamedTuple):
    """A rectangle on the page, in pixels; `x`, `y` is its top left corner."""

    x: float
    y: float
    width: float
    height: float


class Canvas:
    """A page of a fixed width; `finish` cuts it to the height that was used."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._marks: list[Callable[[Image.Image, ImageDraw.ImageDraw], None]] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        weight: Weight = "normal",
        color: str = INK,
        align: Literal["left", "center", "right"] = "left",
        upwards: bool = False,
    ) -> None:
        """One line of text with its middle at height `y`; `size` is the font's, in pixels.

        Text that runs `upwards` has its lower end at `y` and its middle at `x`.
        """
        length = text_width(text, size, weight)

        def write(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
            stroke = _FINE * size / 48 if weight == "bold" else 0
            for part, font in _runs(text, size):
                draw.text((x, y), part, color, font, anchor="ls", stroke_width=stroke, stroke_fill=color)
                x += font.getlength(part) + (stroke if weight == "bold" else 0)

        def mark(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            if upwards:
                strip = Image.new("RGB", (round(length * _FINE) + 2, round(size * 1.5 * _FINE)), "white")
                write(ImageDraw.Draw(strip), 0, size * _FINE)
                strip = strip.rotate(90, expand=True)
                page.paste(strip, (round(x * _FINE - strip.width / 2), round(y * _FINE) - strip.height))
                return
            left = x - length * {"left": 0, "center": 0.5, "right": 1}[align]
            write(draw, left * _FINE, (y + size * 0.36) * _FINE)

        self._marks.append(mark)

    def chip(self, box: Box, color: str | np.ndarray, *, radius: float = 5, dashed: bool = False) -> None:
        """A filled rectangle with round corners; `dashed` adds a dashed border of ink."""
        fill = color if isinstance(color, str) else tuple(int(255 * channel) for channel in color)
        corner = min(radius, box.width / 2, box.height / 2) * _FINE

        def mark(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            draw.rounded_rectangle(_corners(box), corner, fill)

        self._marks.append(mark)
        if dashed:
            self.outline(box, INK, 1.2, dashed=True)

    def outline(self, box: Box, color: str, thickness: float, *, dashed: bool = False) -> None:
        """An empty rectangle; `thickness` in pixels."""
        x, y = box.x, box.y
        right, bottom = x + max(box.width, thickness), y + max(box.height, thickness)
        middle = thickness / 2
        sides = [
            Box(x - middle, y - middle, right - x + thickness, thickness),
            Box(x - middle, bottom - middle, right - x + thickness, thickness),
            Box(x - middle, y - middle, thickness, bottom - y + thickness),
            Box(right - middle, y - middle, thickness, bottom - y + thickness),
        ]
        dash = 4.0 if dashed else float("inf")

        def mark(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            for side in sides:
                along = max(side.width, side.height)
                start = 0.0
                while start < along:
                    length = min(dash, along - start)
                    if side.width >= side.height:
                        piece = side._replace(x=side.x + start, width=length)
                    else:
                        piece = side._replace(y=side.y + start, height=length)
                    draw.rectangle(_corners(piece), color)
                    start += 1.8 * dash

        self._marks.append(mark)

    def line(self, points: np.ndarray, color: str, thickness: float) -> None:
        """A line through points (n, 2), x and y; `thickness` in pixels."""

        def mark(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            draw.line((points * _FINE).ravel().tolist(), color, round(thickness * _FINE), joint="curve")

        self._marks.append(mark)

    def pixels(self, box: Box, pixels: np.ndarray, *, smooth: bool = True) -> None:
        """An array (h, w, 3 or 4) in [0, 1], RGB or RGBA, stretched over a rectangle."""
        picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        self.image(box, picture, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)

    def image(self, box: Box, picture: Image.Image, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> None:
        """An image stretched over a rectangle."""

        def mark(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            # On output pixels, which are then doubled: a smooth resize to fine pixels takes four times as long.
            left, top = round(box.x * SCALE), round(box.y * SCALE)
            width = max(round((box.x + box.width) * SCALE) - left, 1)
            height = max(round((box.y + box.height) * SCALE) - top, 1)
            scaled = picture.resize((width, height), resampling)
            scaled = scaled.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
            page.paste(scaled, (2 * left, 2 * top), scaled if scaled.mode == "RGBA" else None)

        self._marks.append(mark)

    def finish(self, height: float) -> Image.Image:
        """The picture, `height` pixels tall."""
        size = (2 * round(self.width * SCALE), 2 * round(height * SCALE))
        page = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(page)
        for mark in self._marks:
            mark(page, draw)
        return page.reduce(2)


def _corners(box: Box) -> tuple[int, int, int, int]:
    """The first and last fine pixel of a rectangle in both directions: left, top, right, bottom."""
    left, top = round(box.x * _FINE), round(box.y * _FINE)
    right, bottom = round((box.x + box.width) * _FINE) - 1, round((box.y + box.height) * _FINE) - 1
    return left, top, max(right, left), max(bottom, top)


@cache
def _font(number: int, size: int) -> ImageFont.FreeTypeFont | None:
    """Pillow's font, number 0, or a font of the system, in fine pixels; None if the system does not have it."""
    try:
        font = ImageFont.truetype(_SYSTEM_FONTS[number - 1], size) if number else ImageFont.load_default(size)
    except OSError:
        return None
    return font if isinstance(font, ImageFont.FreeTypeFont) else None


@cache
def _font_of(letter: str) -> int:
    """The number of the first font that has a letter; 0 if none has it."""
    for number in range(len(_SYSTEM_FONTS) + 1):  # reading all of the system's fonts would take longer than drawing
        font = _font(number, 20)
        if font and (letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))):
            return number
    return 0


def _runs(text: str, size: float) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """A text in pieces of one font each. Control characters are shown as the replacement character."""
    runs: list[tuple[str, int]] = []
    for letter in text:
        letter = letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        number = _font_of(letter)
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0] + letter, number)
        else:
            runs.append((letter, number))
    fonts = [_font(number, round(size * _FINE)) for _, number in runs]
    return [(part, font) for (part, _), font in zip(runs, fonts, strict=True) if font]


@lru_cache(4096)
def text_width(text: str, size: float, weight: Weight = "normal") -> float:
    """The width of a line of text in pixels; `size` as in `Canvas.text`."""
    runs = _runs(text, size)
    stroke = len(runs) * size / 48 if weight == "bold" else 0
    return sum(font.getlength(part) for part, font in runs) / _FINE + stroke


def shortened(text: str, size: float, width: float, *, weight: Weight = "normal") -> str:
    """`text`, cut with an ellipsis where it is wider than `width`."""
    if text_width(text, size, weight) <= width:
        return text
    lengths = range(1, len(text))
    return text[: bisect_right(lengths, width, key=lambda length: text_width(text[:length] + "…", size, weight))] + "…"


def wrapped(text: str, size: float, width: float, *, weight: Weight = "normal") -> list[str]:
    """`text` in lines no wider than `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width, weight=weight))
    return [line for line in lines if line]
