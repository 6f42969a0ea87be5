"""The feature store: layout, writer and reader."""
