"""Describe a feature store in plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coattn.features.store.layout import DETECTION_DTYPES
from coattn.features.store.part_reader import read_part
from coattn.features.store.reader import FeatureStore

_IMAGES_AT_ONCE = 64
_EXTREME = 20  # times the middle dimension's largest magnitude
_NAMED = 5  # examples of each kind of trouble
_BARS = 10


def describe_store(path: Path, *, per_dimension: bool = False, verify: bool = False) -> dict[str, Any]:
    """Counts, provenance and health of a store. Every row is read once.

    A dimension is `dead` if it is 0 in all rows, `constant` if it is another number in all rows, and `extreme` if it
    has a value above 20 times the largest magnitude of the median dimension. Rows with NaN do not count there.

    Args:
        path: the store.
        per_dimension: add the numbers of each dimension.
        verify: compare all files with their checksums.

    Raises:
        ValueError: not a feature store, or a damaged one.
        OSError: it cannot be opened.
    """
    store = FeatureStore(path, check_finite=False)
    lengths = store.lengths
    return {
        "kind": "feature store",
        "path": str(store.path),
        "files": len(store.parts),
        "bytes": sum(part.path.stat().st_size for part in store.parts),
        "images": len(store),
        "first_ids": store.image_ids[:3],
        "skipped": [entry._asdict() for entry in store.skipped],
        "rows": int(lengths.sum()),
        "rows_per_image": {
            "min": int(lengths.min(initial=lengths[0] if len(lengths) else 0)),
            "mean": float(lengths.mean()) if len(lengths) else 0.0,
            "max": int(lengths.max(initial=0)),
        },
        "images_by_rows": _histogram(lengths),
        "dim": store.dim,
        "dtype": store.dtype,
        "detections": [name for name in DETECTION_DTYPES if any(name in part.columns for part in store.parts)],
        "boxes_known": store.has_boxes,
        "images_of_unknown_size": int((store.sizes == 0).any(axis=1).sum()),
        "extractor": store.record,
        **({"checksums": _verify(store)} if verify else {}),
        **_scan(store, per_dimension=per_dimension),
    }


def _verify(store: FeatureStore) -> dict[str, Any]:
    """Files whose content differs from their checksums, and how many have none because an older version made them."""
    without, damaged = 0, []
    for part in store.parts:
        contents = read_part(part.path)
        without += not contents.checksums
        damaged += [f"{part.path}: {name}" for name in contents.damaged()]
    return {"files_without": without, "damaged": {"number": len(damaged), "first": damaged[:_NAMED]}}


def _histogram(lengths: np.ndarray) -> dict[str, int]:
    """Number of images by number of rows: "36", or ranges "10-19" where there are many different numbers."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) <= _BARS:
        return {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    step = -(-int(values[-1] - values[0] + 1) // _BARS)
    starts = range(int(values[0]), int(values[-1]) + 1, step)
    return {
        f"{start}-{start + step - 1}": int(counts[(values >= start) & (values < start + step)].sum())
        for start in starts
    }


def _scan(store: FeatureStore, *, per_dimension: bool) -> dict[str, Any]:
    """Statistics of the values and boxes of all rows."""
    nan = infinite = outside = reversed_ = empty = zero_rows = 0
    low, high, total = np.inf, -np.inf, 0.0
    dimensions = _Dimensions(store.dim)
    bad_images: dict[str, None] = {}
    for start in range(0, len(store), _IMAGES_AT_ONCE):
        batch = store.read_flat(np.arange(start, min(start + _IMAGES_AT_ONCE, len(store))))
        features = batch.features.astype(np.float32)
        finite = np.isfinite(features)
        sound = finite.all(axis=1)
        nan += int(np.isnan(features).sum())
        infinite += int(np.isinf(features).sum())
        zero_rows += int((features == 0).all(axis=1).sum())
        low, high = features.min(initial=low, where=finite), features.max(initial=high, where=finite)
        total += float(features.sum(where=finite, dtype=np.float64))
        dimensions.add(features if sound.all() else features[sound])
        corner, opposite = batch.boxes[:, :2], batch.boxes[:, 2:]
        is_outside = ~((batch.boxes >= 0) & (batch.boxes <= 1)).all(axis=1)
        is_reversed = (corner > opposite).any(axis=1)
        outside += int(is_outside.sum())
        reversed_ += int(is_reversed.sum())
        empty += int((corner == opposite).any(axis=1).sum())
        images = np.repeat(np.arange(len(batch.lengths)), batch.lengths)[~sound | is_outside | is_reversed]
        bad_images |= dict.fromkeys(store.image_ids[start + image] for image in images.tolist())
    values = int(store.lengths.sum()) * store.dim - nan - infinite
    return {
        "values": {
            "min": float(low) if values else None,
            "mean": total / values if values else None,
            "max": float(high) if values else None,
            "nan": nan,
            "infinite": infinite,
            "all_zero_rows": zero_rows,
        },
        "dimensions": dimensions.describe(per_dimension=per_dimension),
        "boxes": {"outside_image": outside, "reversed": reversed_, "without_area": empty if store.has_boxes else 0},
        "bad_images": {"number": len(bad_images), "first": list(bad_images)[:_NAMED]},
    }


class _Dimensions:
    """Statistics of each dimension, accumulated in float64 (Chan, Golub & LeVeque 1983)."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(dim), np.zeros(dim)
        self.low, self.high = np.full(dim, np.inf), np.full(dim, -np.inf)

    def add(self, rows: np.ndarray) -> None:
        """Include more rows, (n, D) of finite numbers."""
        if not len(rows):
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        shift, count = mean - self.mean, self.count + len(rows)
        self.squares += np.square(rows - mean).sum(axis=0) + shift**2 * (self.count * len(rows) / count)
        self.mean += shift * (len(rows) / count)
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))
        self.count = count

    def describe(self, *, per_dimension: bool) -> dict[str, Any]:
        """The dead, constant and extreme dimensions, and with `per_dimension` the numbers of all."""
        if not self.count or not len(self.mean):
            return {"dead": _some([]), "constant": _some([]), "extreme": _some([])}
        same = self.low == self.high
        dead = same & (self.low == 0)
        largest = np.maximum(-self.low, self.high)
        alive = largest[~dead]
        extreme = (largest > _EXTREME * np.median(alive)) if len(alive) else dead
        deviation = np.sqrt(self.squares / self.count)
        return {
            "dead": _some(dead),
            "constant": _some(same & ~dead),
            "extreme": _some(extreme),
            "deviation": {
                "min": float(deviation.min()),
                "median": float(np.median(deviation)),
                "max": float(deviation.max()),
            },
            **({"each": self._each(deviation)} if per_dimension else {}),
        }

    def _each(self, deviation: np.ndarray) -> dict[str, list[float]]:
        columns = {"mean": self.mean, "deviation": deviation, "min": self.low, "max": self.high}
        return {name: column.tolist() for name, column in columns.items()}


def _some(which: Any) -> dict[str, Any]:
    numbers = np.flatnonzero(which).tolist()
    return {"number": len(numbers), "first": numbers[:_NAMED]}
