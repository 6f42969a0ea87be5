"""VinVL's TSV files (Zhang et al. 2021, arXiv 2101.00529).

The layouts are taken from public scripts around microsoft/scene_graph_benchmark and microsoft/Oscar that write and read
`predictions.tsv`, `features.tsv`, `label.tsv` and `hw.tsv`. They were not checked on released files.
"""

from __future__ import annotations

import ast
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from coattn._internal.files import require_regular
from coattn.features.convert.formats.arrays import as_rows, from_base64
from coattn.features.convert.formats.base import ImageRegions, SourceImage, number
from coattn.features.convert.formats.tsv import LineSource

_GEOMETRY = 6  # last columns of features of width 2054: x1, y1, x2, y2, height, width, in parts of the image
_WIDTH = 2048


class VinvlTsv(LineSource):
    """One image a line: its name, and JSON or base64.

    - `features.tsv`: `{"num_boxes": n, "features": BASE64}`, or two columns with the same. Features of width 2054 end
      with the box of their region, which becomes its box here; the image's size stays unknown. Otherwise the boxes are
      unknown.
    - `predictions.tsv`: `{"objects": [{"rect": [x1, y1, x2, y2], "conf": c, "feature": BASE64}, ...]}`, boxes in
      pixels. The images' sizes come from the file `*.hw.tsv` beside it.

    Names of classes are not kept: a store holds their numbers, which these files do not have.

    Raises:
        ValueError: as `LineSource`; several `*.hw.tsv` lie beside the file.
    """

    extractor = "vinvl"

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        require_regular(path)
        sizes = sorted(path.parent.glob("*.hw.tsv"))
        if len(sizes) > 1:
            raise ValueError(f"{path}: {len(sizes)} files *.hw.tsv lie beside it; leave the one that belongs to it")
        self._sizes = _read_sizes(sizes[0]) if sizes else {}
        super().__init__(path, 0, progress=progress)

    def read(self, entry: SourceImage) -> ImageRegions:
        """Decode one line."""
        with ExitStack() as stack:
            fields = [bytes(field) for field in self.fields(entry, stack)]
        size = self._sizes.get(entry.name, (0, 0))
        if len(fields) == 3:
            return _with_geometry(fields[2], number(fields[1], "num_boxes"), size)
        if len(fields) != 2:
            raise ValueError(f"{len(fields)} columns; a TSV of VinVL has 2 or 3")
        try:
            item = json.loads(fields[1])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its second column is not JSON, or cut off ({error!s:.80})") from None
        if isinstance(item, dict) and "features" in item:
            return _with_geometry(item["features"], number(item.get("num_boxes"), "num_boxes"), size)
        if not isinstance(item, dict) or not isinstance(item.get("objects"), list):
            raise ValueError("its second column has neither features nor objects")
        return _from_objects(item["objects"], size)


def _with_geometry(text: Any, count: int, size: tuple[int, int]) -> ImageRegions:
    if isinstance(text, bytes) and text[:1] == b'"':
        text = text.strip(b'"')
    values = from_base64(text, "features", "<f4")
    if values.size % max(count, 1) or (values.size and not count):
        raise ValueError(f"features are {values.size} numbers, which is not a multiple of num_boxes, {count}")
    rows = values.reshape(count, values.size // count if count else 0)
    if rows.shape[1] != _WIDTH + _GEOMETRY:
        return ImageRegions(rows, None, size)
    boxes = rows[:, _WIDTH : _WIDTH + 4]
    return ImageRegions(rows, boxes * np.array([*size, *size], np.float32) if any(size) else boxes, size)


def _from_objects(objects: list[Any], size: tuple[int, int]) -> ImageRegions:
    if not any(size):
        raise ValueError("has boxes in pixels, but its image is in no *.hw.tsv beside the file; put it there")
    if not all(isinstance(one, dict) and "feature" in one and "rect" in one for one in objects):
        raise ValueError("an object lacks feature or rect")
    features = [from_base64(one["feature"], "feature", "<f4") for one in objects]
    if len({len(row) for row in features}) > 1:
        raise ValueError("its objects have features of different widths")
    scores = [one.get("conf") for one in objects]
    return ImageRegions(
        np.array(features, np.float32).reshape(len(features), -1 if features else 0),
        as_rows([one["rect"] for one in objects], "rect") if objects else np.empty((0, 4), np.float32),
        size,
        scores=None if None in scores else np.array(scores, np.float32),
    )


def _read_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Width and height of each image, from lines `NAME <tab> [{"height": h, "width": w}]`."""
    require_regular(path)
    sizes = {}
    for place, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, _, text = line.partition("\t")
        try:
            value = ast.literal_eval(text)
            item = value[0] if isinstance(value, list) else value
            sizes[name] = number(item["width"], "width", least=1), number(item["height"], "height", least=1)
        except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
            raise ValueError(f'{path}, line {place}: is not NAME, a tab and [{{"height": h, "width": w}}]') from None
    return sizes
