"""Images to region features."""
