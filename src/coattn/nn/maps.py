"""The grammar of attention map names: how they are built, and how they are taken apart.

A name consists of the part of the model that computed the map, the meaning of its rows, and that of its columns::

    [part.]<rows>_to_<columns>      layers.2.question_to_regions    row: a word or a region that attends
    [part.]<columns>                pooling.regions                 one row: a pooling to one vector
    decoder[.layers.<i>].<columns>  decoder.regions                 row: a word of the generated answer

`rows` and `columns` are `question` or `regions`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from torch import Tensor

Side = Literal["question", "regions"]
Rows = Literal["question", "regions", "answer"]
Maps = dict[str, Tensor]

POOLING, DECODER = "pooling", "decoder"


class MapName(NamedTuple):
    """The parts of a map's name; `str()` joins them.

    Attributes:
        part: the part of the model that computed the map, e.g. `layers.2`, `pooling` or `decoder.layers.0`; empty for
            the maps that a single layer returns.
        rows: the meaning of the rows; None for the single row of a pooling.
        columns: the meaning of the columns.
    """

    part: str
    rows: Rows | None
    columns: Side

    def __str__(self) -> str:
        own = f"{self.rows}_to_{self.columns}" if self.rows in get_args(Side) else self.columns
        return f"{self.part}.{own}" if self.part else own


def parse(name: str) -> MapName:
    """Take a map's name apart: the inverse of `str(MapName(...))`.

    Raises:
        ValueError: not the name of a map.
    """
    part, _, own = name.rpartition(".")
    left, between, columns = own.rpartition("_to_")
    rows: Rows | None = left if between else None  # type: ignore[assignment]
    if columns not in get_args(Side) or (between and left not in get_args(Side)):
        raise ValueError(
            f"{name!r} is not the name of an attention map; it must end in question, regions or <side>_to_<side>"
        )
    if rows is None and part.partition(".")[0] == DECODER:
        rows = "answer"
    return MapName(part, rows, columns)  # type: ignore[arg-type]


def name_maps(part: str = "", **maps: Tensor | None) -> Maps:
    """Maps by full name, without those that were not computed.

    Args:
        part: the part of the model that computed them, see `MapName`.
        maps: the last part of each name, `question_to_regions` or `regions`, and its map.
    """
    return prefix_maps(part, {own: weights for own, weights in maps.items() if weights is not None})


def prefix_maps(part: str, maps: Maps) -> Maps:
    """The maps of a part, with the part before each name: `question_to_regions` -> `<part>.question_to_regions`."""
    return {f"{part}.{name}" if part else name: weights for name, weights in maps.items()}
