"""Several feature stores read as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coattn.features.store.mapped import MappedStore
from coattn.features.store.reader import FeatureStore, require_same_extractor


class JoinedStore(MappedStore):
    """Several feature stores of one extractor, read as one: the images of the first, then those of the next.

    Raises:
        ValueError: the stores come from different extractors.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        for store in stores[1:]:
            require_same_extractor(
                stores[0].record, store.record, wanted_by=str(stores[0].path), found_in=str(store.path)
            )
        super().__init__(", ".join(str(store.path) for store in stores), [part for s in stores for part in s.parts])
        self.stores, self.record = stores, stores[0].record
        self._first = np.cumsum([0, *(len(store) for store in stores)])

    def __contains__(self, image_id: object) -> bool:
        return any(image_id in store for store in self.stores)

    def index(self, image_id: int | str) -> int:
        """Position of an image, in the first store that has it."""
        holders = (number for number, store in enumerate(self.stores) if image_id in store)
        number = next(holders, len(self.stores) - 1)
        return int(self._first[number]) + self.stores[number].index(image_id)

    def asset(self, name: str) -> Path | None:
        """A file kept with one of the stores; None if there is none."""
        return next((asset for store in self.stores if (asset := store.asset(name)) is not None), None)
