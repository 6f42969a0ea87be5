"""Several feature stores read as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
        super().__init__(", ".join(str(store.path) for store in stores), [part for s in stores for part in s.parts])
        self.stores, self.record = stores, stores[0].record
        _refuse_shared_ids(stores)
        self._first = np.cumsum([0, *(len(store) for store in stores)])

    def __contains__(self, image_id: object) -> bool:
        return any(image_id in store for store in self.stores)

    def index(self, image_id: int | str) -> int:
        """Position of an image."""
        holders = (number for number, store in enumerate(self.stores) if image_id in store)
        number = next(holders, len(self.stores) - 1)
        return int(self._first[number]) + self.stores[number].index(image_id)

    def asset(self, name: str) -> Path | None:
        """A file that is kept with one of the stores; None if there is none."""
        return next((asset for store in self.stores if (asset := store.asset(name)) is not None), None)


def _refuse_shared_ids(stores: Sequence[FeatureStore]) -> None:
    """Refuse stores that share an id: a question about it could get the features of another image."""
    counts = Counter(image_id for store in stores for image_id in store.image_ids)
    shared = next((image_id for image_id, count in counts.items() if count > 1), None)
    if shared is not None:
        first, second = [store.path for store in stores if shared in store.image_ids][:2]
        number = sum(count > 1 for count in counts.values())
        raise ValueError(
            f"{first} and {second} both hold image {shared!r} ({number} shared ids in all); give one store, or give "
            "the images of one other ids (in the images.json of `coattn extract`, or by --ids of `coattn convert`)"
        )
