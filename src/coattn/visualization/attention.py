"""Explanations as pictures: the question with its words, the image with its regions, the answers, and a caption."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from coattn.explain.answers import UNSURE
from coattn.explain.maps import Explanation, Head, Line, default_map
from coattn.explain.methods import METHODS
from coattn.nn.maps import Rows, parse
from coattn.visualization.canvas import Box, Canvas, shortened
from coattn.visualization.color import BLUE, scale_of
from coattn.visualization.parts import (
    Values,
    draw_answers,
    draw_heading,
    draw_image,
    draw_legend,
    draw_lines,
    draw_question,
    draw_table,
    fitted,
)

MARGIN, GAP = 30, 28
MAX_HEIGHT = 720  # of an image
MOST_NUMBERED = 24  # rows, columns and regions that get a number


def draw(
    explanation: Explanation,
    *,
    map: str | None = None,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
) -> Image.Image:
    """The picture of an attribution, or of one attention map: words, image, answers, and a caption that names it.

    A map between words and regions is drawn as one image per word unless a word or region is named, a map of words to
    words or regions to regions as a table beside the numbered image. Words are colored by the pooling of the question
    that goes with the map, where the map itself is not about words.

    Args:
        explanation: of `Predictor.attribute` or `Predictor.maps`.
        map: the name of the map. When None, the explanation's attribution; without one, `default_map` of the regions.
        head: which head, or "mean" for their mean; may be left out where there is only one.
        word: the word, by text or place, whose attention is shown; in a decoder's map a word of the answer.
        region: the region, by number, whose attention is shown.

    Raises:
        ValueError: as `Explanation.line`.
    """
    if map is None and explanation.attribution is not None:
        return _draw_attribution(explanation)
    map = map or default_map(explanation.maps, "regions")
    lines = _lines(explanation, map, head, word, region)
    words, words_name = _words(explanation, map, head, lines)
    canvas = Canvas(1240 if len(lines) > 1 else 960)
    top = draw_question(canvas, MARGIN, MARGIN, canvas.width - 2 * MARGIN, explanation, words, size=22)
    answers_width = 240.0
    box = Box(MARGIN, top, canvas.width - 2 * MARGIN - GAP - answers_width, MAX_HEIGHT)
    if lines:
        weights = np.concatenate([line.weights for line in lines])
        scale = scale_of(weights, lines[0].uniform)
        shown = Values(weights, lines[0].uniform, scale)
    else:
        table = explanation.weights(map, head=head)
        uniform = 1 / table.shape[1]
        shown = Values(table, uniform, scale_of(table, uniform))
    numbered: list[int] = []
    if len(lines) == 1:
        box = fitted(explanation, box)
        answers_width = canvas.width - 2 * MARGIN - GAP - box.width
        on_image = shown if lines[0].side == "regions" else None
        bottom = draw_image(canvas, box, explanation, on_image, owner=lines[0].region, num_outlined=3)
    elif lines:
        names = explanation.written if parse(map).rows == "answer" else explanation.tokens
        bottom = _draw_image_per_word(canvas, box, explanation, names, lines, shown.scale)
    else:
        (rows, num_rows), (columns, num_columns) = _axes(explanation, map)
        steps = [1 if names else math.ceil(count / MOST_NUMBERED) for names, count in _axes(explanation, map)]
        bottom = draw_table(canvas, box, rows, columns, shown, steps)
        places = [range(0, count, step) for count, step in zip((num_rows, num_columns), steps, strict=True)]
        numbered = sorted({*(() if rows else places[0]), *(() if columns else places[1])})
    caption = f"{_map_caption(explanation, map, head, lines)}{words_name}"
    return _finish(canvas, top, bottom, answers_width, explanation, caption, shown, numbered)


def draw_map(explanation: Explanation, size: int) -> Image.Image:
    """The image with the colors of an attribution, without captions, and with no side longer than `size` pixels."""
    box = fitted(explanation, Box(0, 0, 2 * size, 2 * size))
    canvas = Canvas(box.width)
    draw_image(canvas, box, explanation, _attributed(explanation)[1])
    picture = canvas.finish(box.height)
    picture.thumbnail((size, size))
    return picture


def _draw_attribution(explanation: Explanation) -> Image.Image:
    found = explanation.attribution
    assert found is not None
    method = METHODS[found.method]
    words, regions = _attributed(explanation)
    canvas = Canvas(960)
    page = canvas.width - 2 * MARGIN
    answer = UNSURE if explanation.answers.withheld else f"“{found.answer}”"
    title = f"{method.title[0].upper()}{method.title[1:]}: {answer}"
    canvas.text(MARGIN, MARGIN + 4, shortened(title, 15, page, weight="bold"), 15, color=BLUE, weight="bold")
    top = draw_question(canvas, MARGIN, MARGIN + 28, page, explanation, words, size=22)
    box = fitted(explanation, Box(MARGIN, top, page - GAP - 240, MAX_HEIGHT))
    bottom = draw_image(canvas, box, explanation, regions, num_outlined=3)
    note = f" {found.note[0].upper()}{found.note[1:]}." if found.note else ""
    how = "Points of probability for and against this answer" if found.signed else "Shares of attention"
    passes = "1 pass" if found.num_passes == 1 else f"{found.num_passes} passes"
    caption = (
        f"Method {found.method} ({passes} of the model). {how}.{note} {method.weakness} {_faithfulness(explanation)}"
    )
    return _finish(canvas, top, bottom, page - GAP - box.width, explanation, caption, regions, [])


def _attributed(explanation: Explanation) -> tuple[Values, Values]:
    """The values of the words and of the regions in an attribution, each on its scale."""
    found = explanation.attribution
    assert found is not None
    if found.signed:
        words, regions = (Values(values, None, scale_of(values, None)) for values in (found.words, found.regions))
        return words, regions
    of_words = np.array([len(word.places) for word in explanation.words]) / max(len(explanation.tokens), 1)
    of_regions = 1 / max(len(found.regions), 1)
    return (
        Values(found.words, of_words, scale_of(found.words, of_words)),
        Values(found.regions, of_regions, scale_of(found.regions, of_regions)),
    )


def _faithfulness(explanation: Explanation) -> str:
    """How faithful the method was on the model's validation questions."""
    found = explanation.attribution
    if found is None or found.faithfulness is None:
        return "How faithful it is for this model is not measured; coattn explain-test measures it."
    than = "better" if found.faithfulness >= 0 else "worse"
    points = abs(found.faithfulness)
    return f"On this model's validation questions it was {points:.1f} points {than} than a random order."


def _finish(
    canvas: Canvas,
    top: float,
    bottom: float,
    answers_width: float,
    explanation: Explanation,
    caption: str,
    shown: Values,
    numbered: Sequence[int],
) -> Image.Image:
    """The right column, the legend and the caption of a page."""
    x = canvas.width - MARGIN - answers_width
    y = draw_answers(canvas, x, top, answers_width, explanation.answers)
    if explanation.image is not None or numbered:  # heat hides colors, which the question may be about
        heading = "THE REGIONS BY NUMBER" if numbered else "THE IMAGE ITSELF"
        draw_heading(canvas, x, y + GAP, heading)
        box = fitted(explanation, Box(x, y + GAP + 18, answers_width, 240))
        if numbered:
            draw_image(canvas, box, explanation, None, numbered=numbered)
        elif explanation.image is not None:
            canvas.image(box, explanation.image.convert("RGB"))
        y = box.y + box.height
    bottom = draw_legend(canvas, MARGIN, max(bottom, y) + 20, shown)
    return canvas.finish(draw_lines(canvas, MARGIN, bottom + 4, canvas.width - 2 * MARGIN, caption) + MARGIN)


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
        explanations: of `Predictor.attribute` or `Predictor.maps`.
        map: the name of the map, the same for all or one per explanation; see `draw`. Of a decoder's map the first word
            of the answer is shown if no word is named.
        head: see `draw`; the same for all.
        word: see `draw`; the same for all.
        region: see `draw`; the same for all.
        titles: one per explanation, written above it.
        columns: images per row.

    Raises:
        ValueError: as `Explanation.line`; no explanations, or another number of maps or titles.
    """
    by_attribution = map is None and all(explanation.attribution is not None for explanation in explanations)
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
        several = len(set(maps)) > 1 and not by_attribution
        for text in [*([titles[place]] if titles else []), *([name] if several else [])]:
            canvas.text(x, y + 8, shortened(text, 13, width, weight="bold"), 13, color=BLUE, weight="bold")
            y += 24
        words: Values | None
        regions: Values | None
        owner: int | None = None
        if by_attribution:
            words, regions = _attributed(explanation)
            assert explanation.attribution is not None
            method = METHODS[explanation.attribution.method]
            captions.append(f"{method.title[0].upper()}{method.title[1:]}. {_faithfulness(explanation)}")
        else:
            shown = 0 if word is None and parse(name).rows == "answer" else word
            line = explanation.line(name, head=head, word=shown, region=region)
            words, words_name = _words(explanation, name, head, [line])
            captions.append(f"{_map_caption(explanation, name, head, [line])}{words_name}")
            scale = scale_of(line.weights, line.uniform)
            regions = Values(line.weights, line.uniform, scale) if line.side == "regions" else None
            owner = line.region
        bottom = max(bottom, _draw_cell(canvas, Box(x, y, width, 400), explanation, words, regions, owner))
    bottom += 18
    for caption in dict.fromkeys(captions):
        text = (
            caption
            if by_attribution
            else f"{caption} Colors run from the uniform share to the strongest of each image."
        )
        bottom = draw_lines(canvas, MARGIN, bottom, canvas.width - 2 * MARGIN, text)
    return canvas.finish(bottom + MARGIN)


def _draw_cell(
    canvas: Canvas, box: Box, explanation: Explanation, words: Values | None, regions: Values | None, owner: int | None
) -> float:
    """One image of a comparison with its question and best answer below, no higher than `box`."""
    y = draw_image(canvas, fitted(explanation, box), explanation, regions, owner=owner, num_outlined=1) + 14
    small = fitted(explanation, Box(box.x, y, 84, 56))
    if explanation.image is not None:  # heat hides colors, which the question may be about
        canvas.image(small._replace(x=box.x + box.width - small.width), explanation.image.convert("RGB"))
    question_width = box.width - small.width - 12
    y = max(draw_question(canvas, box.x, y, question_width, explanation, words, size=15), y + small.height + 8)
    return draw_answers(canvas, box.x, y, box.width, explanation.answers, heading=False, most=1)


def _draw_image_per_word(
    canvas: Canvas, box: Box, explanation: Explanation, words: Sequence[str], lines: Sequence[Line], scale: float
) -> float:
    """One image per word, all on one scale of colors."""
    columns = 3 if len(lines) <= 6 else 4
    width = (box.width - (columns - 1) * 16) / columns
    first = fitted(explanation, Box(box.x, box.y + 24, width, 300))
    step = first.height + 44
    for place, line in enumerate(lines):
        x, y = box.x + place % columns * (width + 16), box.y + place // columns * step
        canvas.text(x, y + 8, shortened(words[place], 15, width), 15, weight="bold")
        values = Values(line.weights, line.uniform, scale)
        draw_image(canvas, first._replace(x=x, y=y + 24), explanation, values, num_outlined=1)
    return box.y + math.ceil(len(lines) / columns) * step - 20


# Which lines of a map are shown, and what is said about them


def _lines(explanation: Explanation, name: str, head: Head, word: int | str | None, region: int | None) -> list[Line]:
    """The lines of a map to draw on images: the one named, one per word, or none for a map to draw as a table."""
    explanation.weights(name, head=head)  # its errors come first
    _, rows, columns = parse(name)
    if rows is None or word is not None or region is not None:
        return [explanation.line(name, head=head, word=word, region=region)]
    if rows == columns or (rows == "answer" and columns == "question"):
        return []
    words = explanation.written if rows == "answer" else explanation.tokens
    return [explanation.line(name, head=head, word=place) for place in range(len(words))]


def _names(explanation: Explanation, side: Rows | None) -> Sequence[str]:
    """The words of a side; none for regions, which have numbers."""
    return {"question": explanation.tokens, "answer": explanation.written}.get(side or "", ())


def _axes(explanation: Explanation, name: str) -> list[tuple[Sequence[str], int]]:
    """The names along each side of a map, and how many there are."""
    return [
        (_names(explanation, side), count)
        for side, count in zip(parse(name)[1:], explanation.maps[name].shape[1:], strict=True)
    ]


def _words(explanation: Explanation, name: str, head: Head, lines: Sequence[Line]) -> tuple[Values | None, str]:
    """The values that color the words, and their name in the caption."""

    def values(weights: np.ndarray, uniform: float) -> Values:
        of_words = explanation.by_word(np.full(len(explanation.tokens), uniform))
        by_word = explanation.by_word(weights)
        return Values(by_word, of_words, scale_of(by_word, of_words))

    if len(lines) == 1 and lines[0].side == "question":
        return values(lines[0].weights, lines[0].uniform), ""
    partner = f"{name.removesuffix('regions')}question"
    is_pair = parse(name).rows in (None, "answer") and partner in explanation.maps
    words = partner if is_pair else default_map(explanation.maps, "question")
    pooling = explanation.maps.get(words)
    if pooling is None:
        return None, ""
    said = f" Words: {words}{_head(pooling, head)}."
    if parse(words).rows == "answer":  # each word of the answer has its own words of the question
        if not is_pair or len(lines) != 1:
            return None, ""
        line = explanation.line(words, head=head, word=lines[0].word)
        return values(line.weights, line.uniform), said
    if len(pooling) == 1:
        return values(pooling[0, 0], 1 / pooling.shape[2]), f" Words: {words}."
    if is_pair:  # the glimpses of the image go with those of the words
        line = explanation.line(words, head=head)
        return values(line.weights, line.uniform), said
    return None, ""


def _head(heads: np.ndarray, head: Head) -> str:
    if head == "mean":
        return f", mean over its {len(heads)} heads"
    return "" if len(heads) == 1 else f", head {head} (of 0 to {len(heads) - 1})"


def _map_caption(explanation: Explanation, name: str, head: Head, lines: Sequence[Line]) -> str:
    rows = parse(name).rows
    of_image = lines and lines[0].side == "regions"
    kind = "Image" if of_image else "Words" if lines else "Table"
    shown = f"Where the answer was read. {kind}: {name}{_head(explanation.maps[name], head)}"
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
