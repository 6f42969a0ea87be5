"""Write a feature store file, image by image."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from coattn.features.store.layout import (
    COLUMN_DTYPES,
    ColumnBlocks,
    Skipped,
    feature_dtype,
)
from coattn.features.store.mapped import all_finite
from coattn.features.store.part_writer import naming_full_disk, write_part

_SPOOL_BYTES = 256 * 2**20  # a shard of `coattn extract` stays in memory
_BLOCK_BYTES = 8 * 2**20


class StoreWriter:
    """Write one HDF5 file of features; nothing appears at `path` unless the `with` block ends without an error.

    Rows are collected in memory, above 256 MB in an unnamed temporary file beside `path`, because their number must be
    known before they can be laid out in one piece.

    Args:
        path: the file to write, usually `*.h5`.
        dim: width D of a feature row.
        dtype: float16 (half the size; rounds to about 3 digits), float32, or int8 (a quarter of the size; each row has
            its own scale and is exact to 1/253 of its largest magnitude, if that is above 0.01).
        record: the extractor of the features (see `provenance`).

    Raises:
        ValueError: unknown dtype.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, dim: int, dtype: str = "float16", record: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.dim = dim
        self.dtype = dtype
        self._stored = feature_dtype(dtype)
        self.record = record
        self.sources = ""  # a fingerprint of the files that the features are made from
        self._ids: dict[str, None] = {}
        self._lengths: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._columns: dict[str, list[np.ndarray]] = {}
        self._skipped: list[Skipped] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(self.path.parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._spool:
            if error is None:
                self._finish()

    def add(
        self,
        image_id: int | str,
        features: np.ndarray,
        boxes: np.ndarray | None = None,
        size: tuple[int, int] = (0, 0),
        labels: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        attributes: np.ndarray | None = None,
        attribute_scores: np.ndarray | None = None,
    ) -> None:
        """Append an image.

        Args:
            image_id: kept as text, and unique in a store. For question embeddings, the question.
            features: (n, D), n may be 0.
            boxes: (n, 4), x1 y1 x2 y2 in [0, 1] of the image; None if unknown, and for text tokens. Given for every
                image or for none.
            size: width and height of the original image in pixels; (0, 0) if unknown, and for text.
            labels: (n,) class of each region, from a detector; given for every image or for none.
            scores: (n,) confidence of each region, likewise.
            attributes: (n,) attribute of each region, likewise.
            attribute_scores: (n,) confidence of each attribute, likewise.

        Raises:
            ValueError: a shape, box or value that the store cannot hold; the message names the image.
        """
        name = str(image_id)
        features = np.asarray(features)
        optional = {"boxes": boxes, "labels": labels, "scores": scores}
        optional |= {"attributes": attributes, "attribute_scores": attribute_scores}
        rows = {key: np.asarray(value) for key, value in optional.items() if value is not None}
        self._check(name, features, rows)
        stored, scale = self._encode(name, features)
        if scale is not None:
            rows["scale"] = scale
        for key, value in rows.items():
            self._columns.setdefault(key, []).append(value.astype(COLUMN_DTYPES[key]))
        with naming_full_disk(self.path):
            self._spool.write(stored.tobytes())
        self._ids[name] = None
        self._lengths.append(len(features))
        self._sizes.append(size)

    def skip(self, image_id: str, path: str, reason: str) -> None:
        """Record an image that has no features because it could not be read."""
        self._skipped.append(Skipped(image_id, path, reason))

    def _check(self, name: str, features: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        where = f"{self.path}: image {name!r}"
        if name in self._ids:
            raise ValueError(f"{where} comes twice; image ids must be unique")
        if not name or "\0" in name:
            raise ValueError(f"{where}: an image id must not be empty or hold a NUL character")
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"{where} has features of shape {features.shape}, the store holds (n, {self.dim})")
        for key, value in rows.items():
            shape = (len(features), 4) if key == "boxes" else (len(features),)
            if value.shape != shape:
                raise ValueError(f"{where} has {key} of shape {value.shape}, its features ask for {shape}")
        boxes = rows.get("boxes", np.empty((0, 4)))
        if boxes.size and not (boxes.min() >= 0 and boxes.max() <= 1 and (boxes[:, :2] <= boxes[:, 2:]).all()):
            raise ValueError(
                f"{where} has boxes from {boxes.min():g} to {boxes.max():g}, not x1 <= x2 and y1 <= y2 in [0, 1]; "
                "divide pixels by the image's width and height"
            )
        if self._ids and rows.keys() != self._columns.keys() - {"scale"}:
            raise ValueError(f"{where}: boxes, labels, scores and attributes must be given for every image or for none")

    def _encode(self, name: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Convert to the stored type: rows, and their scales for int8."""
        with np.errstate(over="ignore", invalid="ignore"):
            stored, scale = quantize(features) if self.dtype == "int8" else (_cast(features, self._stored), None)
        if not all_finite(stored if scale is None else scale):
            largest = np.abs(features).max()
            reason = (
                f"a feature of {largest:g}, beyond {self.dtype}; store them as float32 (--dtype float32)"
                if np.isfinite(largest)
                else "features that are NaN or infinite"
            )
            raise ValueError(f"{self.path}: image {name!r} has {reason}")
        return stored, scale

    def _finish(self) -> None:
        columns: dict[str, ColumnBlocks] = {"features": (self._stored, (self.dim,), self._feature_blocks())}
        needed = {"scale"} if self.dtype == "int8" else set()
        for key in sorted(self._columns.keys() | needed):
            row_shape = (4,) if key == "boxes" else ()
            column = np.concatenate([np.empty((0, *row_shape), COLUMN_DTYPES[key]), *self._columns.get(key, [])])
            columns[key] = (column.dtype, row_shape, [column])
        write_part(
            self.path,
            record=self.record,
            image_ids=list(self._ids),
            lengths=self._lengths,
            sizes=np.array(self._sizes, "<i4"),
            columns=columns,
            skipped=self._skipped,
            sources=self.sources,
        )

    def _feature_blocks(self) -> Iterator[np.ndarray]:
        self._spool.seek(0)
        row_bytes = self.dim * self._stored.itemsize
        while block := self._spool.read(max(1, _BLOCK_BYTES // row_bytes) * row_bytes):
            yield np.frombuffer(block, self._stored).reshape(-1, self.dim)


def _cast(features: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to the stored type. Torch rounds to float16 exactly as numpy does, in a tenth of the time."""
    if (features.dtype, dtype) == (np.float32, np.float16) and features.size:
        import torch  # late: stores are read without it

        contiguous = np.require(features, np.float32, ["C", "W"])  # torch warns of arrays that cannot be written
        return torch.from_numpy(contiguous).half().numpy()
    return features.astype(dtype)


def quantize(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert rows (n, D) to int8 (n, D) and scale (n,) float16: `int8 * scale` is within half a scale of the row."""
    exact = np.abs(features).max(axis=1, initial=0).astype(np.float32) / 127
    scale = exact.astype("<f2")
    # Round up: the largest value then fits in 127 steps, also where float16 is coarse.
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale)
    steps = features / np.where(scale > 0, scale, 1).astype(np.float32)[:, None]
    return np.nan_to_num(np.rint(steps)).astype(np.int8), scale
