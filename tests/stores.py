"""A small feature store that tests write, with images of 0 to 7 rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coattn.features.store.reader import FeatureStore, StoreWriter

RECORD = {"name": "test", "settings": {}, "weights": None, "versions": {}}
LENGTHS = [3, 0, 1, 7, 2, 5]


def write(
    path: Path, *, dtype: str = "float16", dim: int = 12, seed: int = 0, record: dict = RECORD, prefix: str = ""
) -> FeatureStore:
    random = np.random.default_rng(seed)
    with StoreWriter(path, dim=dim, dtype=dtype, record=record) as writer:
        for number, length in enumerate(LENGTHS):
            corners = np.sort(random.random((length, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
            writer.add(
                f"{prefix}{number}", random.normal(size=(length, dim)).astype(np.float32), corners, (40, 30 + number)
            )
    return FeatureStore(path)
