"""Folders with an `.npz` file for each image, as openvqa and MILVLG's bottom-up-attention.pytorch have them.

Layouts are taken from the projects' source: openvqa f8f9966 (data/gqa/gqa_h52npz.py, data/clevr/clevr_extract_feat.py
and its loaders) and bottom-up-attention.pytorch (utils/extract_utils.py). They were not checked on released files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coattn.features.convert.formats.arrays import Npz, as_rows, detections
from coattn.features.convert.formats.base import FolderSource, ImageRegions, SourceImage, files_of, image_name, number
from coattn.features.extract.extractors.base import grid_boxes

# The grids that openvqa's scripts write without boxes: (cells, width) -> extractor, rows, columns.
_GRIDS = {(196, 1024): ("clevr-grid", 14, 14), (49, 2048): ("gqa-grid", 7, 7)}


class NpzFolder(FolderSource):
    """Arrays `x` and `bbox` (n, 4) in pixels, with `image_w` and `image_h`, or for GQA `width` and `height`.

    openvqa keeps x of VQA's images transposed, (2048, n), that of GQA's as (n, 2048): n is the number of boxes. Without
    `bbox`, x of (196, 1024) is openvqa's grid of CLEVR and x of (49, 2048) that of GQA; other boxes stay unknown.
    MILVLG's `info`, a pickled dict, has `objects_id`, `objects_conf`, `attrs_id` and `attrs_conf`.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        entries = [SourceImage(image_name(file), (file,)) for file in files_of(path, ".npz")]
        super().__init__(path, entries, kind=".npz files")
        self.extractor = self._guess()

    def _guess(self) -> str:
        """The extractor, by the arrays of the first file that can be read."""
        for entry in self.entries:
            try:
                with Npz(entry.files[0]) as arrays:
                    if "bbox" not in arrays.names:
                        return _GRIDS.get(as_rows(arrays["x"], "x").shape, ("unknown",))[0]
                    if "info" in arrays.names:
                        return "bottom-up-pytorch"
                    return "gqa-objects" if "width" in arrays.names else "bottom-up"
            except (ValueError, OSError, TypeError):
                continue
        return "bottom-up"

    def read(self, entry: SourceImage) -> ImageRegions:
        """Read one file."""
        with Npz(entry.files[0]) as arrays:
            x = as_rows(arrays["x"], "x")
            if "bbox" not in arrays.names:
                _, *grid = _GRIDS.get(x.shape, ("unknown",))
                return ImageRegions(x, grid_boxes(*grid) if grid else None, (0, 0))
            boxes = as_rows(arrays["bbox"], "bbox")
            if len(x) != len(boxes) and x.shape[1] == len(boxes):
                x = np.ascontiguousarray(x.T)
            width = number(arrays.first("image_w", "width"), "image_w", least=1)
            height = number(arrays.first("image_h", "height"), "image_h", least=1)
            return ImageRegions(x, boxes, (width, height), **detections(arrays.first("info")))
