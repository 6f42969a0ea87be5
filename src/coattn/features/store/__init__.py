"""The feature store: layout, writer, reader."""
