"""Export of a model directory to ONNX: a folder that `coattn.runtime` answers from without torch."""

from .folder import export_folder

__all__ = ["export_folder"]
