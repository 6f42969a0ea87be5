"""Training: batches, data module, task, checkpoints, and the model directory at the end. Needs the extra `train`."""

from coattn.training.checkpoints import Checkpoints
from coattn.training.data.module import VQADataModule
from coattn.training.export import export_model
from coattn.training.task import VQATask

__all__ = ["Checkpoints", "VQADataModule", "VQATask", "export_model"]
