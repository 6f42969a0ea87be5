"""What a set of answers is worth: the official scores, and how far a confidence can be trusted."""
