"""What is in a feature store, as plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coattn.features.store import FeatureStore

_IMAGES_AT_ONCE = 64


def describe_store(path: Path) -> dict[str, Any]:
    """Counts, provenance and health of a store; reads every row once.

    Raises:
        ValueError: not a feature store, or a damaged one.
        OSError: it cannot be opened.
    """
    store = FeatureStore(path)
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
        "dim": store.dim,
        "dtype": store.dtype,
        "extractor": store.record,
        **_scan(store),
    }


def _scan(store: FeatureStore) -> dict[str, Any]:
    """Values and boxes, over all rows."""
    nan = infinite = outside = reversed_ = empty = zero_rows = 0
    low, high, total = np.inf, -np.inf, 0.0
    for start in range(0, len(store), _IMAGES_AT_ONCE):
        batch = store.gather(np.arange(start, min(start + _IMAGES_AT_ONCE, len(store))))
        features = batch.features.astype(np.float32)
        finite = np.isfinite(features)
        nan += int(np.isnan(features).sum())
        infinite += int(np.isinf(features).sum())
        zero_rows += int((features == 0).all(axis=1).sum())
        low, high = features.min(initial=low, where=finite), features.max(initial=high, where=finite)
        total += float(features.sum(where=finite, dtype=np.float64))
        corner, opposite = batch.boxes[:, :2], batch.boxes[:, 2:]
        outside += int((~((batch.boxes >= 0) & (batch.boxes <= 1)).all(axis=1)).sum())
        reversed_ += int((corner > opposite).any(axis=1).sum())
        empty += int((corner == opposite).any(axis=1).sum())
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
        "boxes": {"outside_image": outside, "reversed": reversed_, "without_area": empty},
    }
