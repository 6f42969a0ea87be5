"""The feature store: layout, writer and reader."""

from coattn.features.store.reader import FeatureStore, StoreWriter

__all__ = ["FeatureStore", "StoreWriter"]
