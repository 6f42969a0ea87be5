"""An explanation of one answer: attention maps and attributions, with the words and boxes that they belong to.

A map (H, to, from) has one map per head and, between the layers, one row per word or region that attends. Nothing is
averaged unless asked for: a map of several heads needs a head (or "mean"), one of several rows needs a word or a
region. `coattn.visualization.attention` draws an explanation.

A model that writes its answer has maps `decoder.*` too, with one row per word that it wrote.

Letters: T question tokens, W question words, R regions, H heads or glimpses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from coattn.explain.answers import Answers
from coattn.nn.maps import Side, parse
from coattn.text.reading import Word

Head = int | Literal["mean"] | None


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
        side: whether the weights belong to the question's tokens or to the image's regions.
        weights: (T,) or (R,).
        word: the place of the token that owns the line, or None; in a decoder's map, of the word of the answer.
        region: the region that owns the line, or None.
        is_row: a row shows where its owner looks and sums to at most 1; a column shows who looks at its owner.
        uniform: the weight of each element of a uniform map.
    """

    side: Side
    weights: np.ndarray
    word: int | None
    region: int | None
    is_row: bool
    uniform: float


class Attribution(NamedTuple):
    """How much each region and word matters for one answer, by one method.

    Attributes:
        method: a name of `coattn.explain.methods.METHODS`.
        answer: the answer that is explained.
        regions: (R,) values: probability for (positive) or against (negative) the answer; of a method that reads
            attention maps, shares.
        words: (W,) the same for the words of the question; 0 for special tokens.
        signed: whether the values have a sign.
        num_passes: passes of the model that it took.
        note: how regions or words were grouped; empty if each was treated alone.
        faithfulness: points above a random order on the model's validation questions (see `explain-test`), if measured.
    """

    method: str
    answer: str
    regions: np.ndarray
    words: np.ndarray
    signed: bool
    num_passes: int
    note: str = ""
    faithfulness: float | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """One answer, its attention maps and perhaps an attribution, with everything needed to read them.

    Attributes:
        question: as it was asked.
        tokens: the T tokens that the model read.
        boxes: (R, 4) float, x1 y1 x2 y2 in [0, 1] of the image.
        image: the image, or None when only its features are at hand.
        size: width and height of the image in pixels; (0, 0) if not known.
        maps: name -> (H, to, from) float, each row over `from` summing to 1 at most.
        answers: the best answers, best first.
        written: the words of the best answer, by a model that writes it word by word; else empty.
        words: the W words that the tokens belong to, in order; by default each token is a known word.
        attribution: how much each region and word matters, if it was asked for.
    """

    question: str
    tokens: tuple[str, ...]
    boxes: np.ndarray
    image: Image.Image | None
    size: tuple[int, int]
    maps: Mapping[str, np.ndarray]
    answers: Answers
    written: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    attribution: Attribution | None = None

    def __post_init__(self) -> None:
        if not self.words:
            words = tuple(Word(token, (place,)) for place, token in enumerate(self.tokens))
            object.__setattr__(self, "words", words)

    def weights(self, name: str, *, head: Head = None) -> np.ndarray:
        """The map `name` (to, from) of one head, or of the mean over heads with `head="mean"`.

        Raises:
            ValueError: no such map or head; or there are several heads and none is named.
        """
        if name not in self.maps:
            raise ValueError(f"no map is called {name!r}; this model has {', '.join(self.maps) or 'none'}")
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
        """The row or column of map `name` that belongs to a word or region; the only row of a pooling needs neither.

        Args:
            name: the name of the map.
            head: see `weights`.
            word: a token or its place: where it looks, or, in a map onto the question, who looks at it. In a decoder's
                map a word of the answer: where it was found.
            region: the number of a region: where it looks, or, in a map onto the regions, who looks at it.

        Raises:
            ValueError: as `weights`; or the word or region is missing, unknown, ambiguous or not part of this map.
        """
        weights = self.weights(name, head=head)
        _, rows, columns = parse(name)
        uniform = 1 / max(weights.shape[1], 1)
        if rows is None:
            if word is not None or region is not None:
                raise ValueError(f"the map {name} has a single row: no word or region to choose")
            return Line(columns, weights[0], None, None, True, uniform)
        if rows == "answer":
            if word is None or region is not None:
                raise ValueError(f"the map {name} has a row for each word of the answer: name one of them")
            place = _place(word, self.written, "answer")
            return Line(columns, weights[place], place, None, True, uniform)
        if (word is None) == (region is None):
            choices = " or ".join(sorted({"a word" if side == "question" else "a region" for side in (rows, columns)}))
            raise ValueError(f"the map {name} has many rows: name {choices}")
        side: Side = "regions" if word is None else "question"
        if side not in (rows, columns):
            raise ValueError(f"the map {name} has no {'word' if side == 'question' else 'region'} to choose")
        if word is not None:
            place = _place(word, self.tokens, "question")
        elif isinstance(region, int) and 0 <= region < len(self.boxes):
            place = region
        else:
            raise ValueError(f"the image has the regions 0 to {len(self.boxes) - 1}, not {region!r}")
        is_row = rows == side
        along = columns if is_row else rows
        assert along != "answer"
        weights = weights[place] if is_row else weights[:, place]
        if side == "question":
            return Line(along, weights, place, None, is_row, uniform)
        return Line(along, weights, None, place, is_row, uniform)

    def by_word(self, weights: np.ndarray) -> np.ndarray:
        """Weights of the tokens (T,), added up to those of the words (W,)."""
        return np.array([weights[list(word.places)].sum() for word in self.words])


def _place(word: int | str, tokens: Sequence[str], owner: str) -> int:
    """The place of a word that is given by its text or place."""
    places = [place for place, token in enumerate(tokens) if word in (token, place)]
    if not places:
        numbered = ", ".join(f"{place} {token}" for place, token in enumerate(tokens))
        raise ValueError(f"the {owner} has no word {word!r}, only {numbered}")
    if len(places) > 1:
        raise ValueError(f"the {owner} has {word!r} at {' and '.join(map(str, places))}: name the place")
    return places[0]


def default_map(maps: Mapping[str, np.ndarray], side: Side) -> str:
    """The map to show where none is named: the last pooling over `side`, `pooling.<side>` for most models.

    Of a model that writes its answers it is where their words were found, `decoder.<side>`.
    """
    found = (name for name in reversed(list(maps)) if parse(name)[1:] in ((None, side), ("answer", side)))
    return next(found, f"pooling.{side}")


def word_weights(
    explanation: Explanation,
    name: str | None = None,
    *,
    head: Head = None,
    word: int | str | None = None,
    region: int | None = None,
) -> list[WordWeight]:
    """The question's tokens with their weights in one line of a map, in reading order.

    Arguments and errors are those of `Explanation.line`, with `default_map` when no map is named. A line over regions
    is a ValueError too.
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

    Arguments and errors are those of `Explanation.line`, with `default_map` when no map is named. A line over words is
    a ValueError too.
    """
    name = name or default_map(explanation.maps, "regions")
    weights = _line_over("regions", explanation.line(name, head=head, word=word, region=region), name)
    pairs = zip(explanation.boxes.tolist(), weights.tolist(), strict=True)
    return [RegionWeight(tuple(box), weight) for box, weight in pairs]


def _line_over(side: Side, line: Line, name: str) -> np.ndarray:
    if line.side != side:
        raise ValueError(f"this line of the map {name} has weights for the {line.side}, not for the {side}")
    return line.weights
