"""The data of a training configuration, for commands that do not train."""

from __future__ import annotations

import os
from pathlib import Path

import jsonargparse
import yaml

from coattn.training.data.module import VQADataModule
from coattn.training.settings import regroup


def open_data(config: str | os.PathLike[str], model: str | os.PathLike[str] | None = None) -> VQADataModule:
    """The data of a training configuration.

    Args:
        config: its YAML file.
        model: a model directory or checkpoint, with whose vocabularies the questions are read.

    Raises:
        FileNotFoundError: there is no such configuration.
        ValueError: it is not a training configuration.
    """
    path = Path(config)
    if not path.is_file():
        hint = "" if model is None else "; give --config, the one the model was trained with"
        raise FileNotFoundError(f"{path}: no such configuration{hint}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(VQADataModule, "data")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict) or not isinstance(settings.get("data"), dict):
            raise TypeError("it has no settings of data")
        chosen = regroup("data", settings["data"])[0] | ({} if model is None else {"vocabulary_from": str(model)})
        return parser.instantiate(parser.parse_object({"data": chosen})).data
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, jsonargparse.ArgumentError) as error:
        raise ValueError(f"{path}: not a training configuration: {' '.join(str(error).split())}") from None
