"""Readers that turn every data set into the same records, and the exchange format they are written in."""
