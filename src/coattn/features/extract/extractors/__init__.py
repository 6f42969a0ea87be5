"""What makes regions of pictures, one file for each kind."""
