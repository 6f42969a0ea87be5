"""Feature files of other projects to a feature store."""
