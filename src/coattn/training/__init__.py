"""Training: batches, data module, task, checkpoints, and the model directory at the end. Needs the extra `train`."""
