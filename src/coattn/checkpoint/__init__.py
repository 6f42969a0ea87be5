"""Models on disk: directories of our own, and the checkpoints that the authors of published models released."""

from .directory import (
    ANSWERS,
    CONFIG,
    EXTRACTOR,
    QUESTIONS,
    TEXT_ENCODER,
    WEIGHTS,
    ModelDirectory,
    load,
    load_directory,
    save_model,
)
from .names import NameTable
from .openvqa import from_openvqa, openvqa_names

__all__ = [
    "ANSWERS",
    "CONFIG",
    "EXTRACTOR",
    "QUESTIONS",
    "TEXT_ENCODER",
    "WEIGHTS",
    "ModelDirectory",
    "NameTable",
    "from_openvqa",
    "load",
    "load_directory",
    "openvqa_names",
    "save_model",
]
