"""Visual question answering with stackable co-attention. Importing this needs torch only."""

__version__ = "0.1.0"
