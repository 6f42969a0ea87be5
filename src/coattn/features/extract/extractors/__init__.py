"""Extractors of region features, one file for each kind."""
