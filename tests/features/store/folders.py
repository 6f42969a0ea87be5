"""A folder of shards with an index, as `coattn extract` makes it, of any number of small images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coattn.features.store.manifest import Manifest, Unit
from coattn.features.store.reader import index_folder
from coattn.features.store.writer import StoreWriter

RECORD = {"name": "test", "settings": {}, "weights": None, "versions": {}}


def write_folder(folder: Path, num_images: int, *, per_shard: int = 4, dim: int = 4, index: bool = True) -> Path:
    """Images "0", "1", ... of 0 to 3 rows, whose first value is the number of the image."""
    folder.mkdir()
    numbers = range(num_images)
    units = [
        Unit(f"shard-{shard:05}.h5", {str(n): f"{n}.jpg" for n in numbers[start : start + per_shard]})
        for shard, start in enumerate(range(0, num_images, per_shard))
    ]
    manifest = Manifest(RECORD, dim, "float32", False, units)
    manifest.write(folder)
    for unit in units:
        write_shard(folder / unit.shard, list(unit.images), dim=dim)
    if index:
        index_folder(folder, manifest)
    return folder


def write_shard(path: Path, names: list[str], *, dim: int = 4, value: float = 0.5) -> None:
    with StoreWriter(path, dim=dim, dtype="float32", record=RECORD) as writer:
        for name in names:
            rows = np.full((int(name) % 4, dim), value, np.float32)
            rows[:, 0] = int(name)
            writer.add(name, rows, np.tile(np.array([0, 0, 0.5, 1], np.float32), (len(rows), 1)), (640, 480))
