"""Merge several feature stores into one file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from coattn._internal.files import atomic_folder, atomic_path
from coattn.features.store.catalog import INDEX
from coattn.features.store.image_ids import ImageIds
from coattn.features.store.layout import Part
from coattn.features.store.manifest import MANIFEST
from coattn.features.store.part_writer import write_part
from coattn.features.store.provenance import joined_record, require_same_extractor
from coattn.features.store.reader import FeatureStore, asset_path

_BLOCK_ROWS = 4096


def merge(sources: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> FeatureStore:
    """Copy stores (folders of shards, or files) one after another into the file `out`, with the assets of the first.

    Rows are copied as they are stored, a block at a time.

    Raises:
        ValueError: `out` exists or is not named *.h5; other extractors, dtypes or columns; an image id in two stores.
    """
    target = Path(out)
    if target.suffix != ".h5":
        raise ValueError(f"{target}: a merged store is one file, its name must end in .h5")
    if target.exists():
        raise ValueError(f"{target}: exists; delete it, or give the merged store another name")
    stores = [FeatureStore(source) for source in sources]
    _check_mergeable(stores)
    _copy_assets(stores[0], target)
    parts = [part for store in stores for part in store.parts]
    write_part(
        target,
        record=joined_record([store.record for store in stores]),
        image_ids=ImageIds.joined([store.image_ids for store in stores]),
        lengths=np.concatenate([store.lengths for store in stores]),
        sizes=np.concatenate([store.sizes for store in stores]),
        columns={
            name: (column.dtype, column.shape[1:], _blocks(parts, name)) for name, column in parts[0].columns.items()
        },
        skipped=[entry for store in stores for entry in store.skipped],
    )
    return FeatureStore(target)


def _check_mergeable(stores: Sequence[FeatureStore]) -> None:
    first = stores[0]
    for store in stores:
        require_same_extractor(first.record, store.record, wanted_by=str(first.path), found_in=str(store.path))
        for part in store.parts:
            if (names := {*part.columns}) != {*first.parts[0].columns} or store.dtype != first.dtype:
                raise ValueError(
                    f"{part.path} holds {store.dtype} and {sorted(names)}, {first.path} holds {first.dtype} and "
                    f"{sorted(first.parts[0].columns)}; only stores of one kind can be merged"
                )
    for one, other in combinations(stores, 2):
        if shared := one.image_ids.shared(other.image_ids):
            raise ValueError(f"{one.path} and {other.path} both hold image {shared[0]!r}")


def _blocks(parts: Sequence[Part], name: str) -> Iterator[np.ndarray]:
    for part in parts:
        rows = part.open().columns[name]
        for start in range(0, len(rows), _BLOCK_ROWS):
            yield rows[start : start + _BLOCK_ROWS]


def _copy_assets(store: FeatureStore, target: Path) -> None:
    folder = store.path if store.path.is_dir() else asset_path(store.path, "")
    ours = {MANIFEST, INDEX, *(part.path.name for part in store.parts)}
    for source in sorted(folder.iterdir()) if folder.is_dir() else []:
        if source.name in ours or source.name.startswith("."):
            continue
        copy = asset_path(target, source.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(copy, ignore_errors=True)  # left by an interrupted merge
            with atomic_folder(copy) as partial:
                shutil.copytree(source, partial, dirs_exist_ok=True)
        else:
            with atomic_path(copy) as partial:
                shutil.copyfile(source, partial)
