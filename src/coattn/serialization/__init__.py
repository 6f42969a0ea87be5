"""Model directories: save and load, as safetensors and JSON."""

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
    read_config,
    read_question_vocabulary,
    save_model,
)
from .versions import rename_parameters

__all__ = [
    "ANSWERS",
    "CONFIG",
    "EXTRACTOR",
    "QUESTIONS",
    "TEXT_ENCODER",
    "WEIGHTS",
    "ModelDirectory",
    "load",
    "load_directory",
    "read_config",
    "read_question_vocabulary",
    "rename_parameters",
    "save_model",
]
