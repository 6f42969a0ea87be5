"""Describe a model directory in plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coattn._internal.files import files_below
from coattn.serialization.config import read_config
from coattn.serialization.directory import damaged_files, load_directory
from coattn.serialization.files import CARD, CONFIG
from coattn.text.vocabulary import Vocabulary

_NAMED = 5  # damaged files


def describe_model(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """The model, its vocabularies and calibration, its extractor, and its files. The model is loaded and checked.

    Args:
        folder: the model directory.
        verify: compare all files with their hashes; damaged ones are listed, and the model is not loaded then.

    Raises:
        ValueError: the directory is damaged.
        OSError: a file is missing.
    """
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files_below(folder)}
    config = read_config(folder)
    found: dict[str, Any] = {"kind": "model", "path": str(folder), "files": files}
    if verify:
        damaged = damaged_files(folder, config)
        without = sorted(files.keys() - config["sha256"].keys() - {CONFIG, CARD})
        found["checksums"] = {"without": without, "damaged": {"number": len(damaged), "first": damaged[:_NAMED]}}
        if damaged:
            return found
    directory = load_directory(folder)
    questions = directory.question_vocabulary
    words = questions.words if isinstance(questions, Vocabulary) else questions  # without padding and unknown
    return found | {
        "model": config["model"]["class"],
        "parameters": sum(parameter.numel() for parameter in directory.model.parameters()),
        "answers": len(directory.answer_vocabulary),
        "question_words": None if words is None else len(words),
        "max_tokens": directory.max_tokens,
        "metric": directory.metric,
        "activation": directory.activation,
        "temperature": directory.temperature,
        "extractor": directory.extractor,
        "text_encoder": directory.text_encoder,
    }
