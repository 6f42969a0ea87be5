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
    read_question_vocabulary,
    save_model,
)

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
    "read_question_vocabulary",
    "save_model",
]
