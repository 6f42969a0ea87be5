"""The data of a run: questions, answers and features of each split, as batches in a reproducible order."""
