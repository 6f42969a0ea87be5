"""Folders with an `.npz` file for each image, as openvqa and MILVLG's bottom-up-attention.pytorch have them.

Layouts are taken from the projects' source (openvqa f8f9966: data/gqa/gqa_h52npz.py, data/clevr/clevr_extract_feat.py
and its loaders; bottom-up-attention.pytorch: utils/extract_utils.py); none was checked on files that they released.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coattn.features.convert.formats.arrays import Npz, as_rows, detections
from coattn.features.convert.formats.base import FolderSource, ImageRegions, SourceImage, files_of, image_name, number
from coattn.features.convert.formats.grid import square_grid

# By width of the cells of a grid, which has no boxes.
_GRIDS = {1024: "clevr-grid", 2048: "gqa-grid"}


class NpzFolder(FolderSource):
    """Arrays `x` and `bbox` (n, 4) in pixels, with `image_w` and `image_h`, or for GQA `width` and `height`.

    openvqa keeps x of VQA's images transposed, (2048, n), that of GQA's as (n, 2048): n is the number of boxes. Without
    `bbox` x is a square grid, (cells, D), row by row. MILVLG's `info`, a pickled dict, has `objects_id`,
    `objects_conf`, `attrs_id` and `attrs_conf`.
    """

    def __init__(self, path: Path, *, progress: bool = False) -> None:
        entries = [SourceImage(image_name(file), (file,)) for file in files_of(path, ".npz")]
        super().__init__(path, entries, kind=".npz files")
        self.extractor = self._guess()

    def _guess(self) -> str:
        """What made the features, by the names of the arrays of the first file that can be read."""
        for entry in self.entries:
            try:
                with Npz(entry.files[0]) as arrays:
                    if "bbox" not in arrays.names:
                        return _GRIDS.get(as_rows(arrays["x"], "x").shape[1], "unknown-grid")
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
                return ImageRegions(x, square_grid(len(x)), (0, 0))
            boxes = as_rows(arrays["bbox"], "bbox")
            if len(x) != len(boxes) and x.shape[1] == len(boxes):
                x = np.ascontiguousarray(x.T)
            width = number(arrays.first("image_w", "width"), "image_w", least=1)
            height = number(arrays.first("image_h", "height"), "image_h", least=1)
            return ImageRegions(x, boxes, (width, height), **detections(arrays.first("info")))
