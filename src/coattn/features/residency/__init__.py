"""Where features are held while training."""
