"""What a model looked at for one question about one image: its attention maps, with the words and boxes they speak of.

A map (H, to, from) has one map per head and, between the layers, one row per word or region that attends. None of that
is ever averaged away unasked: a map of several heads needs a head (or "mean"), one of several rows needs the word or
region meant. `coattn.visualization.attention` draws what is here.

A model that writes its answer has maps `decoder.*` too, with one row per word that it wrote.

Letters: T question tokens, R regions, H heads or glimpses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from coattn.nn.maps import POOLING, MapName, Rows, Side, parse

Head = int | Literal["mean"] | None


class Answer(NamedTuple):
    """An answer, as people type it, and the calibrated probability, in [0, 1], that it is right."""

    text: str
    confidence: float


class WordWeight(NamedTuple):
    """A question token and its weight in a map."""

    token: str
    weight: float


class RegionWeight(NamedTuple):
    """A region's box, x1 y1 x2 y2 in [0, 1] of the image, and its weight in a map."""

    box: tuple[float, ...]
    weight: float


class Line(NamedTuple):
    """One row or column of a map.

    Attributes:
        side: what it has a weight for, the question's tokens or the image's regions.
        weights: (T,) or (R,).
        word: the token that it belongs to, by place, or None; in a decoder's map, the word of the answer.
        region: the region that it belongs to, or None.
        is_row: a row says where its owner looks, and sums to 1 (to less where a model may look at nothing, or shares
            its attention out over words and regions together); a column says who looks at its owner.
    """

    side: Side
    weights: np.ndarray
    word: int | None
    region: int | None
    is_row: bool


@dataclass(frozen=True, eq=False)
class Explanation:
    """The maps of one forward pass, with everything needed to read them.

    Attributes:
        question: as it was asked.
        tokens: the T tokens that the model read.
        boxes: (R, 4) float, x1 y1 x2 y2 in [0, 1] of the image.
        image: the image, or None when only its features are at hand.
        size: width and height of the image in pixels.
        maps: name -> (H, to, from) float, each row over `from` summing to 1 at most.
        answers: the best answers, best first.
        written: the words of the best answer, by a model that writes it word by word; else empty.
    """

    question: str
    tokens: tuple[str, ...]
    boxes: np.ndarray
    image: Image.Image | None
    size: tuple[int, int]
    maps: Mapping[str, np.ndarray]
    answers: tuple[Answer, ...]
    written: tuple[str, ...] = ()

    def weights(self, name: str, *, head: Head = None) -> np.ndarray:
        """The map `name` (to, from) of one head, or of the mean over heads where `head="mean"` asks for it.

        Raises:
            ValueError: no such map or head; or there are several heads and none is named.
        """
        if name not in self.maps:
            raise ValueError(f"no map is called {name!r}; this model gives {', '.join(self.maps) or 'none'}")
        heads = self.maps[name]
        if head == "mean":
            return heads.mean(0)
        if head is None and len(heads) > 1:
            raise ValueError(f"the map {name} has the heads 0 to {len(heads) - 1}: name one, or ask for 'mean'")
        number = 0 if head is None else head
        if not isinstance(number, int) or not 0 <= number < len(heads):
            raise ValueError(f"the map {name} has the heads 0 to {len(heads) - 1} and 'mean', not {head!r}")
        return heads[number]

    def line(self, name: str, *, head: Head = None, word: int | str | None = None, region: int | None = None) -> Line:
        """The row or column of map `name` that belongs to a word or to a region; a pooling's only row needs neither.

        Args:
            name: of the map.
            head: see `weights`.
            word: a token or its place: where it looks, or, in a map onto the question, who looks at it. In a decoder's
                map a word of the answer: where it was found.
            region: likewise for a region, by its number.

        Raises:
            ValueError: as `weights`; or the word or region is missing, unknown, ambiguous or not part of this map.
        """
        weights = self.weights(name, head=head)
        rows, columns = sides(name)
        if rows is None:
            if word is not None or region is not None:
                raise ValueError(f"the map {name} has a single row: no word or region to choose")
            return Line(columns, weights[0], None, None, True)
        if rows == "answer":
            if word is None or region is not None:
                raise ValueError(f"the map {name} has a row for each word of the answer: name one of them")
            place = _place(word, self.written, "answer")
            return Line(columns, weights[place], place, None, True)
        if (word is None) == (region is None):
            choices = " or ".join(sorted({"a word" if side == "question" else "a region" for side in (rows, columns)}))
            raise ValueError(f"the map {name} has many rows: name {choices}")
        side: Side = "regions" if word is None else "question"
        if side not in (rows, columns):
            raise ValueError(f"the map {name} has no {'word' if side == 'question' else 'region'} to choose")
        place = self._region(region) if word is None else _place(word, self.tokens, "question")
        is_row = rows == side
        weights = weights[place] if is_row else weights[:, place]
        if side == "question":
            return Line(columns if is_row else rows, weights, place, None, is_row)
        return Line(columns if is_row else rows, weights, None, place, is_row)

    def _region(self, region: int | None) -> int:
        if not isinstance(region, int) or not 0 <= region < len(self.boxes):
            raise ValueError(f"the image has the regions 0 to {len(self.boxes) - 1}, not {region!r}")
        return region


def _place(word: int | str, tokens: Sequence[str], owner: str) -> int:
    """Where a word stands, given by text or place."""
    places = [place for place, token in enumerate(tokens) if word in (token, place)]
    if not places:
        numbered = ", ".join(f"{place} {token}" for place, token in enumerate(tokens))
        raise ValueError(f"the {owner} has no word {word!r}, only {numbered}")
    if len(places) > 1:
        raise ValueError(f"the {owner} has {word!r} at {' and '.join(map(str, places))}: name the place")
    return places[0]


def sides(name: str) -> tuple[Rows | None, Side]:
    """What the rows and the columns of a map stand for; the single row of a pooling stands for nothing."""
    _, rows, columns = parse(name)
    return rows, columns


def default_map(maps: Mapping[str, np.ndarray], side: Side) -> str:
    """The map to show where none is named: the last pooling over `side`, `pooling.<side>` for most models.

    Of a model that writes its answers it is where their words were found, `decoder.<side>`.
    """
    found = (name for name in reversed(list(maps)) if sides(name) in ((None, side), ("answer", side)))
    return next(found, str(MapName(POOLING, None, side)))


def word_weights(
    explanation: Explanation,
    name: str | None = None,
    *,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
) -> list[WordWeight]:
    """The question's tokens with their weights in one line of a map, in reading order.

    Arguments and errors as for `Explanation.line`, the map being `default_map` when none is named; a ValueError too
    when the line is over regions.
    """
    name = name or default_map(explanation.maps, "question")
    weights = _line_over("question", explanation.line(name, head=head, word=word, region=region), name)
    return [WordWeight(token, weight) for token, weight in zip(explanation.tokens, weights.tolist(), strict=True)]


def region_weights(
    explanation: Explanation,
    name: str | None = None,
    *,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
) -> list[RegionWeight]:
    """The image's regions with their weights in one line of a map, in the order of the features.

    Arguments and errors as for `Explanation.line`, the map being `default_map` when none is named; a ValueError too
    when the line is over words.
    """
    name = name or default_map(explanation.maps, "regions")
    weights = _line_over("regions", explanation.line(name, head=head, word=word, region=region), name)
    pairs = zip(explanation.boxes.tolist(), weights.tolist(), strict=True)
    return [RegionWeight(tuple(box), weight) for box, weight in pairs]


def _line_over(side: Side, line: Line, name: str) -> np.ndarray:
    if line.side != side:
        raise ValueError(f"this line of the map {name} has weights for the {line.side}, not for the {side}")
    return line.weights


def heat_map(boxes: np.ndarray, line: Line, height: int, width: int) -> np.ndarray:
    """A line over regions as a picture (height, width).

    Where the line is a share of attention, each box spreads its weight evenly over itself; where it says how much each
    region looks, the strongest region that covers a place counts. Smoothed by a quarter of the middle box, so that a
    grid does not show its seams.
    """
    heat = np.zeros((height, width))
    pixels = np.clip(boxes, 0, 1) * (width, height, width, height)
    corners = np.concatenate((np.floor(pixels[:, :2]), np.ceil(pixels[:, 2:])), 1).astype(int)  # (R, 4)
    for (x1, y1, x2, y2), weight in zip(corners.tolist(), line.weights.tolist(), strict=True):
        covered = heat[y1:y2, x1:x2]
        if line.is_row:
            covered += weight / max(covered.size, 1)
        else:
            np.maximum(covered, weight, out=covered)
    middle_width, middle_height = np.median(corners[:, 2:] - corners[:, :2], 0)
    return _blur(height, middle_height / 4) @ heat @ _blur(width, middle_width / 4).T


def _blur(size: int, sigma: float) -> np.ndarray:
    """Gaussian smoothing of a line of `size` values, as a matrix whose rows sum to 1."""
    steps = np.arange(size)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / max(sigma, 0.5)) ** 2)
    return kernel / kernel.sum(1, keepdims=True)
