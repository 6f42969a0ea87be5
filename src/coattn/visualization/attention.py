"""Explanations as pictures: the question with the attended words, the image with the attended regions, the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from coattn.explain.maps import Answer, Explanation, Head, Line, default_map, heat_map, sides
from coattn.nn.maps import Rows, parse
from coattn.visualization.canvas import INK, SCALE, Box, Canvas, shortened, text_width, wrapped

MUTED, FAINT, BLUE, PALE_BLUE = "#66727f", "#e9edf1", "#2b6cb0", "#a9c3dd"
HEAT = LinearSegmentedColormap.from_list("heat", ["#fff8e6", "#fdd06b", "#f98e2b", "#e0431f", "#9c1127"])
MARGIN, GAP = 30, 28
MAX_HEIGHT = 720  # of an image


def draw(
    explanation: Explanation,
    *,
    map: str | None = None,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
) -> Image.Image:
    """The picture of one map: the question's words, the image, the answers, and a caption that says what is shown.

    A map between words and regions is drawn as one image per word unless a word or region is named, a map of words to
    words or regions to regions as a table. Words are shaded by the pooling of the question that goes with the map,
    where the map itself is not about words.

    Args:
        explanation: of `Predictor.maps`.
        map: name of the map; `coattn.explain.default_map` of the regions when None.
        head: which head, or "mean" for their mean; may be left out where there is only one.
        word: the word, by text or place, whose attention is shown; in a decoder's map a word of the answer.
        region: the region, by number, whose attention is shown.

    Raises:
        ValueError: as `Explanation.line`.
    """
    map = map or default_map(explanation.maps, "regions")
    lines = _lines(explanation, map, head, word, region)
    shades, shades_name = _shades(explanation, map, head, lines)
    canvas = Canvas(1240 if len(lines) > 1 else 960)
    page = canvas.width - 2 * MARGIN
    top = _draw_question(canvas, MARGIN, MARGIN, page, explanation, shades, size=22)
    answers_width = 240.0
    box = Box(MARGIN, top, page - GAP - answers_width, MAX_HEIGHT)
    if len(lines) == 1:
        box = _fitted(explanation, box)
        answers_width = page - GAP - box.width
        bottom = _draw_image(canvas, box, explanation, lines[0], num_outlined=3)
    elif lines:
        words = explanation.written if sides(map)[0] == "answer" else explanation.tokens
        bottom = _draw_image_per_word(canvas, box, explanation, words, lines)
    else:
        rows, columns = (_names(explanation, side) for side in sides(map))
        bottom = _draw_table(canvas, box, rows, columns, explanation.weights(map, head=head))
    x = canvas.width - MARGIN - answers_width
    y = _draw_answers(canvas, x, top, answers_width, explanation.answers)
    if explanation.image is not None:  # heat hides colours, which the question may be about
        _draw_heading(canvas, x, y + GAP, "THE IMAGE ITSELF")
        box = _fitted(explanation, Box(x, y + GAP + 18, answers_width, 240))
        canvas.pixels(box, _photo(explanation.image, box))
        y = box.y + box.height
    bottom = max(bottom, y)
    caption = f"{_map_caption(explanation, map, head, lines)}{shades_name} Colours run from 0 to the strongest."
    return canvas.finish(_draw_lines(canvas, MARGIN, bottom + 20, page, caption) + MARGIN)


def compare(
    explanations: Sequence[Explanation],
    *,
    map: str | Sequence[str] | None = None,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 3,
) -> Image.Image:
    """Images side by side: of several questions, several models, or several maps of one explanation, given repeatedly.

    Args:
        explanations: of `Predictor.maps`.
        map: name of the map, the same for all or one per explanation; see `draw`. Of a decoder's map the first word of
            the answer is shown if no word is named.
        head: see `draw`; the same for all.
        word: see `draw`; the same for all.
        region: see `draw`; the same for all.
        titles: one per explanation, to stand above it.
        columns: images per row.

    Raises:
        ValueError: as `Explanation.line`; no explanations, or another number of maps or titles.
    """
    if map is None:
        map = [default_map(explanation.maps, "regions") for explanation in explanations]
    maps = [map] * len(explanations) if isinstance(map, str) else map
    if not len(explanations) or len(maps) != len(explanations) or len(titles or maps) != len(explanations):
        raise ValueError(f"{len(explanations)} explanations, {len(maps)} maps, {len(titles or maps)} titles")
    width, columns = 330.0, min(columns, len(explanations))
    canvas = Canvas(2 * MARGIN + columns * width + (columns - 1) * GAP)
    top = bottom = float(MARGIN)
    captions = []
    for place, (explanation, name) in enumerate(zip(explanations, maps, strict=True)):
        if place and place % columns == 0:
            top = bottom + GAP
        x, y = MARGIN + place % columns * (width + GAP), top
        for text in [*([titles[place]] if titles else []), *([name] if len(set(maps)) > 1 else [])]:
            canvas.text(x, y + 8, shortened(text, 13, width, weight="bold"), 13, color=BLUE, weight="bold")
            y += 24
        shown = 0 if word is None and sides(name)[0] == "answer" else word
        line = explanation.line(name, head=head, word=shown, region=region)
        shades, shades_name = _shades(explanation, name, head, [line])
        captions.append(f"{_map_caption(explanation, name, head, [line])}{shades_name}")
        bottom = max(bottom, _draw_cell(canvas, Box(x, y, width, 400), explanation, line, shades))
    for caption in dict.fromkeys(captions):
        text = f"{caption} Colours run from 0 to the strongest of each image."
        bottom = _draw_lines(canvas, MARGIN, bottom + 18, canvas.width - 2 * MARGIN, text)
    return canvas.finish(bottom + MARGIN)


# What is shown


def _lines(explanation: Explanation, name: str, head: Head, word: int | str | None, region: int | None) -> list[Line]:
    """The lines of a map to draw on images: the one meant, one per word, or none for a map to draw as a table."""
    explanation.weights(name, head=head)  # its errors come first
    rows, columns = sides(name)
    if rows is None or word is not None or region is not None:
        return [explanation.line(name, head=head, word=word, region=region)]
    if rows == columns or (rows == "answer" and columns == "question"):
        return []
    words = explanation.written if rows == "answer" else explanation.tokens
    return [explanation.line(name, head=head, word=place) for place in range(len(words))]


def _names(explanation: Explanation, side: Rows | None) -> Sequence[str]:
    """The words of a side; none for regions, which have numbers."""
    return {"question": explanation.tokens, "answer": explanation.written}.get(side or "", ())


def _shades(explanation: Explanation, name: str, head: Head, lines: Sequence[Line]) -> tuple[np.ndarray | None, str]:
    """The weights (T,) that shade the words, and what the caption says about them."""
    if len(lines) == 1 and lines[0].side == "question":
        return lines[0].weights, ""
    partner = str(parse(name)._replace(columns="question"))
    is_pair = sides(name)[0] in (None, "answer") and partner in explanation.maps
    words = partner if is_pair else default_map(explanation.maps, "question")
    pooling = explanation.maps.get(words)
    if pooling is None:
        return None, ""
    if sides(words)[0] == "answer":  # a word of the answer has its own words of the question
        if not is_pair or len(lines) != 1:
            return None, ""
        shades = explanation.line(words, head=head, word=lines[0].word).weights
        return shades, f" Words: {words}{_head(pooling, head)}."
    if len(pooling) == 1:
        return pooling[0, 0], f" Words: {words}."
    if is_pair:  # the glimpses of the image go with those of the words
        return explanation.line(words, head=head).weights, f" Words: {words}{_head(pooling, head)}."
    return None, ""


def _head(heads: np.ndarray, head: Head) -> str:
    if head == "mean":
        return f", mean over its {len(heads)} heads"
    return "" if len(heads) == 1 else f", head {head} (of 0–{len(heads) - 1})"


def _map_caption(explanation: Explanation, name: str, head: Head, lines: Sequence[Line]) -> str:
    rows, _ = sides(name)
    of_image = lines and lines[0].side == "regions"
    shown = f"{'Image' if of_image else 'Words' if lines else 'Table'}: {name}{_head(explanation.maps[name], head)}"
    if not lines:
        owner = {"question": "word", "answer": "word of the answer", "regions": "region"}[rows or "regions"]
        return f"{shown}; each row shows where one {owner} looks, in percent."
    line = lines[0]
    if line.word is None and line.region is None:
        return f"{shown}, the share of attention that each {'region' if of_image else 'word'} gets."
    if line.region is not None:
        owner = "the region outlined in blue"
    elif len(lines) > 1:
        owner = "each word of the answer" if rows == "answer" else "each word"
    else:
        owner = f"“{_names(explanation, rows if rows == 'answer' else 'question')[line.word or 0]}”"
    if line.is_row:
        return f"{shown}; where {owner} looks."
    return f"{shown}; how much each {'region' if of_image else 'word'} looks at {owner}."


# Parts of the page: each draws at a place and says where it ended


def _draw_question(
    canvas: Canvas,
    x: float,
    y: float,
    width: float,
    explanation: Explanation,
    shades: np.ndarray | None,
    *,
    size: float,
) -> float:
    """The question, and its tokens as chips shaded by their weights; returns the y below."""
    for text in wrapped(explanation.question, size, width, weight="bold"):
        canvas.text(x, y + size / 2, text, size, weight="bold")
        y += size * 1.35
    if shades is None:
        return y + 10
    size = max(size * 0.68, 11.5)
    y += size * 0.4
    place, height = x, size * 1.75
    for token, weight, strength in zip(explanation.tokens, shades, shades / max(shades.max(), 1e-12), strict=True):
        token = shortened(token, size, width - size)
        chip_width = max(text_width(token, size), text_width(_percent(weight), size * 0.72)) + size
        if place > x and place + chip_width > x + width:
            place, y = x, y + height + size * 1.6
        canvas.chip(Box(place, y, chip_width, height), HEAT(strength))
        color = "white" if strength > 0.6 else INK
        canvas.text(place + chip_width / 2, y + height / 2, token, size, ha="center", color=color)
        canvas.text(
            place + chip_width / 2, y + height + size * 0.6, _percent(weight), size * 0.72, ha="center", color=MUTED
        )
        place += chip_width + size * 0.45
    return y + height + size * 2.0


def _draw_answers(
    canvas: Canvas, x: float, y: float, width: float, answers: Sequence[Answer], *, heading: bool = True
) -> float:
    """The answers as bars, their confidence at the end; returns the y below."""
    if heading:
        _draw_heading(canvas, x, y, "ANSWER AND CONFIDENCE")
        y += 28
    for rank, (text, confidence) in enumerate(answers):
        weight, value = "normal" if rank else "bold", _percent(confidence)
        canvas.text(x, y + 8, shortened(text, 15, width - 64, weight=weight), 15, weight=weight)
        canvas.text(x + width, y + 8, value, 13, ha="right", color=INK if rank == 0 else MUTED)
        canvas.chip(Box(x, y + 23, width, 7), FAINT, radius=3.5)
        if confidence > 0.005:
            canvas.chip(Box(x, y + 23, max(width * confidence, 7), 7), PALE_BLUE if rank else BLUE, radius=3.5)
        y += 50
    return y - 12


def _draw_heading(canvas: Canvas, x: float, y: float, text: str) -> None:
    canvas.text(x, y + 6, text, 10.5, color=MUTED, weight="bold")


def _draw_lines(canvas: Canvas, x: float, y: float, width: float, text: str, *, size: float = 12.5) -> float:
    """Small grey text; returns the y below."""
    for line in wrapped(text, size, width):
        canvas.text(x, y + size / 2, line, size, color=MUTED)
        y += size * 1.5
    return y


def _draw_image(
    canvas: Canvas,
    box: Box,
    explanation: Explanation,
    line: Line,
    *,
    num_outlined: int,
    strongest: float | None = None,
) -> float:
    """The image under the heat of a line over regions, the strongest regions outlined with their weights.

    `strongest` is the heat of the darkest colour, that of this line when None; returns the y below.
    """
    _draw_photo(canvas, box, explanation)
    if line.side == "regions" and len(line.weights):
        heat = heat_map(explanation.boxes, line, round(box.height / 2), round(box.width / 2))
        heat /= max(strongest or heat.max(), 1e-12)
        colors = HEAT(heat)
        colors[..., 3] = 0.62 * heat**0.7
        canvas.pixels(box, colors, interpolation="bicubic")
        for number in np.argsort(-line.weights)[:num_outlined][::-1]:
            inner = _inside(box, explanation.boxes[number])
            canvas.outline(inner, "white", 3.4)
            canvas.outline(inner, INK, 1.2)
            _draw_label(canvas, inner, box, _percent(line.weights[number]))
    if line.region is not None:
        canvas.outline(_inside(box, explanation.boxes[line.region]), "white", 5)
        canvas.outline(_inside(box, explanation.boxes[line.region]), BLUE, 3)
    return box.y + box.height


def _draw_cell(canvas: Canvas, box: Box, explanation: Explanation, line: Line, shades: np.ndarray | None) -> float:
    """One image of a comparison with its question and best answer below, no higher than `box`; returns the y below."""
    image_box = _fitted(explanation, box)
    y = _draw_image(canvas, image_box, explanation, line, num_outlined=1) + 14
    small = _fitted(explanation, Box(box.x, y, 84, 56))
    if explanation.image is not None:  # as it is: heat hides colours, which the question may be about
        canvas.pixels(small._replace(x=box.x + box.width - small.width), _photo(explanation.image, small))
    question_width = box.width - small.width - 12
    y = max(_draw_question(canvas, box.x, y, question_width, explanation, shades, size=15), y + small.height + 8)
    return _draw_answers(canvas, box.x, y, box.width, explanation.answers[:1], heading=False)


def _draw_label(canvas: Canvas, region: Box, image: Box, text: str) -> None:
    """A label in the corner of a region, or just outside a region that it would cover, but never outside the image."""
    size = 12 if image.width > 400 else 10.5
    width, height = text_width(text, size) + size * 0.8, size * 1.6
    x, y = region.x, region.y
    if region.width < 1.6 * width or region.height < 2 * height:
        x = min(x, image.x + image.width - width)
        y = y - height if y - height >= image.y else y + region.height
    canvas.chip(Box(x, y, width, height), INK, radius=0.01)
    canvas.text(x + size * 0.4, y + height / 2, text, size, color="white")


def _draw_photo(canvas: Canvas, box: Box, explanation: Explanation) -> None:
    """The image, a little paler than it is so that the heat stands out; an empty sheet with the boxes without it."""
    if explanation.image is None:
        canvas.pixels(box, np.full((1, 1, 3), 0.93))
        for region in explanation.boxes:
            canvas.outline(_inside(box, region), "#c4ccd4", 0.8)
        return
    photo = _photo(explanation.image, box)
    grey = photo @ np.array([0.299, 0.587, 0.114])
    canvas.pixels(box, 0.55 * photo + 0.45 * (0.25 + 0.7 * grey[..., None]))


def _photo(image: Image.Image, box: Box) -> np.ndarray:
    """The image as (h, w, 3) in [0, 1], with as many pixels as `box` has in the output."""
    size = (max(round(box.width * SCALE), 1), max(round(box.height * SCALE), 1))
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)) / 255


def _draw_image_per_word(
    canvas: Canvas, box: Box, explanation: Explanation, words: Sequence[str], lines: Sequence[Line]
) -> float:
    """One image per word, all on one scale of colours; returns the y below."""
    columns = 3 if len(lines) <= 6 else 4
    width = (box.width - (columns - 1) * 16) / columns
    first = _fitted(explanation, Box(box.x, box.y + 24, width, 300))
    strongest = max(
        heat_map(explanation.boxes, line, round(first.height / 2), round(first.width / 2)).max() for line in lines
    )
    step = first.height + 44
    for place, line in enumerate(lines):
        x, y = box.x + place % columns * (width + 16), box.y + place // columns * step
        canvas.text(x, y + 8, shortened(words[place], 15, width), 15, weight="bold")
        panel = first._replace(x=x, y=y + 24)
        _draw_image(canvas, panel, explanation, line, num_outlined=1, strongest=strongest)
    return box.y + math.ceil(len(lines) / columns) * step - 20


def _draw_table(canvas: Canvas, box: Box, rows: Sequence[str], columns: Sequence[str], weights: np.ndarray) -> float:
    """A map as a table, rows and columns labelled by their words, or numbered every few; returns the y below."""
    size = 13
    labels = [
        {place: shortened(names[place], size, 110) for place in range(count)}
        if names
        else {place: str(place) for place in range(0, count, math.ceil(count / 12))}
        for names, count in zip((rows, columns), weights.shape, strict=True)
    ]
    left, above = (max(text_width(name, size) for name in names.values()) + 10 for names in labels)
    side = min((box.width - left) / weights.shape[1], 46)
    x, y = box.x + left, box.y + above
    height, width = side * weights.shape[0], side * weights.shape[1]
    canvas.pixels(Box(x, y, width, height), HEAT(weights / max(weights.max(), 1e-12)), interpolation="nearest")
    for place, name in labels[0].items():
        canvas.text(x - 8, y + side * (place + 0.5), name, size, ha="right")
    for place, name in labels[1].items():
        canvas.text(x + side * (place + 0.5), y - 8, name, size, ha="center", va="bottom", rotation=90)
    if side >= 34:
        for (row, column), weight in np.ndenumerate(weights):
            color = "white" if weight > 0.6 * weights.max() else INK
            number = f"{100 * weight:.0f}"
            canvas.text(x + side * (column + 0.5), y + side * (row + 0.5), number, 11.5, ha="center", color=color)
    return y + height


# Small parts


def _fitted(explanation: Explanation, box: Box) -> Box:
    """The largest box of the image's shape in `box`, at its top left."""
    width, height = explanation.size
    scale = min(box.width / width, box.height / height)
    return box._replace(width=width * scale, height=height * scale)


def _inside(box: Box, region: np.ndarray) -> Box:
    """A region's box, given in [0, 1] of the image that `box` shows, on the page."""
    x1, y1, x2, y2 = region.tolist()
    return Box(box.x + x1 * box.width, box.y + y1 * box.height, (x2 - x1) * box.width, (y2 - y1) * box.height)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"
