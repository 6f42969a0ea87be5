"""Several feature stores read as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from coattn.features.store.mapped import MappedStore
from coattn.features.store.reader import FeatureStore, require_same_extractor


class JoinedStore(MappedStore):
    """Several feature stores of one extractor, read as one: the images of the first, then those of the next.

    Raises:
        ValueError: the stores come from different extractors, or two of them hold an image of the same id.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        for store in stores[1:]:
            require_same_extractor(
                stores[0].record, store.record, wanted_by=str(stores[0].path), found_in=str(store.path)
            )
        super().__init__(
            ", ".join(str(store.path) for store in stores),
            [part for store in stores for part in store.parts],
            np.concatenate([store.num_images for store in stores]),
            np.concatenate([store.lengths for store in stores]),
            np.concatenate([store.sizes for store in stores]),
        )
        self.stores, self.record = stores, stores[0].record
        _refuse_shared_ids(stores)
        self._first = np.cumsum([0, *(len(store) for store in stores)])

    def __contains__(self, image_id: object) -> bool:
        return any(image_id in store for store in self.stores)

    def positions(self, image_ids: Sequence[str]) -> np.ndarray:
        """(N,) int64, the position of each image, or -1."""
        found = np.full(len(image_ids), -1)
        for store, first in zip(reversed(self.stores), self._first[-2::-1], strict=True):  # the first store wins
            there = store.positions(image_ids)
            found = np.where(there >= 0, there + first, found)
        return found

    def index(self, image_id: int | str) -> int:
        """Position of an image."""
        number = next((n for n, store in enumerate(self.stores) if image_id in store), len(self.stores) - 1)
        return int(self._first[number]) + self.stores[number].index(image_id)

    def image_id(self, position: int) -> str:
        """The id of an image by position."""
        number = int(self._first.searchsorted(position, "right")) - 1
        return self.stores[number].image_ids[position - int(self._first[number])]

    def asset(self, name: str) -> Path | None:
        """A file that is kept with one of the stores; None if there is none."""
        return next((asset for store in self.stores if (asset := store.asset(name)) is not None), None)


def _refuse_shared_ids(stores: Sequence[FeatureStore]) -> None:
    """Refuse stores that share an id: a question about it could get the features of another image."""
    pairs = [
        (first, second, shared)
        for first, second in combinations(stores, 2)
        if (shared := first.image_ids.shared(second.image_ids))
    ]
    if pairs:
        first, second, shared = pairs[0]
        number = len({image_id for _, _, ids in pairs for image_id in ids})
        raise ValueError(
            f"{first.path} and {second.path} both hold image {shared[0]!r} ({number} shared ids in all); give one "
            "store, or give the images of one other ids (in the images.json of `coattn extract`, or by --ids of "
            "`coattn convert`)"
        )
