"""The config.json of a model directory, checked."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from coattn._internal.files import aside, read_json
from coattn._internal.kinds import kind_of
from coattn.metrics.calibration import Activation
from coattn.serialization.files import CONFIG, WEIGHTS
from coattn.serialization.registry import check_keys, fits
from coattn.serialization.versions import VERSION, update_config

FORMAT = "coattn model"
CONFIG_KEYS = {
    "format": str,
    "version": int,
    "model": dict,
    "metric": str,
    "activation": Activation,
    "temperature": float,
    "max_tokens": int | None,
    "extractor": dict,
    "text_encoder": dict | None,
    "extra": dict,
    "sha256": dict,
}
RECORD_KEYS = {"name": str, "settings": dict, "weights": dict | None, "versions": dict}
MAX_SIDE = 8192  # pixels; the largest side of an image that a record may ask for


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check a model directory's `config.json`; the model is described as in the current version.

    Raises:
        FileNotFoundError: the folder is not a model directory.
        ValueError: a key is missing, unknown, or of the wrong type.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        old = aside(Path(folder).resolve())
        recovery = f"; an export was interrupted: rename {old} to it" if (old / CONFIG).is_file() else ""
        inside = Path(folder, "model")
        recovery = f"; give {inside}" if (inside / CONFIG).is_file() else recovery
        if (kind := kind_of(folder)) == "missing":
            raise FileNotFoundError(f"{folder}: there is no such model directory{recovery}")
        raise FileNotFoundError(f"{folder}: is {kind}, not a model directory (it has no {CONFIG}){recovery}")
    try:
        config = read_json(path)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f'{path}: not a model of coattn (its "format" is not "{FORMAT}")')
    if config.get("version") not in range(1, VERSION + 1):
        raise ValueError(f"{path}: version {config.get('version')!r}, but this coattn reads versions 1 to {VERSION}")
    earlier = config.pop("weights_sha256", None)  # earlier versions kept one hash, or none
    config.setdefault("sha256", {} if earlier is None else {WEIGHTS: earlier})
    check_keys(config, CONFIG_KEYS, str(path))
    for key, hint in CONFIG_KEYS.items():
        if not fits(config[key], hint):
            raise ValueError(f"{path}: {key}: {config[key]!r:.80} is not of type {_type_text(hint)}")
    if not 0 < config["temperature"] < math.inf:
        raise ValueError(f"{path}: temperature: {config['temperature']} is not a positive number")
    if config["max_tokens"] is not None and config["max_tokens"] < 1:
        raise ValueError(f"{path}: max_tokens: {config['max_tokens']} is not a positive number")
    for key in ("extractor", "text_encoder"):
        if config[key] is not None:
            _check_record(config[key], f"{path}: {key}")
    try:
        return update_config(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_record(record: dict[str, Any], where: str) -> None:
    """Raise ValueError unless this is the record of an extractor or text encoder, with image sizes up to `MAX_SIDE`."""
    check_keys(record, RECORD_KEYS, where)
    for key, hint in RECORD_KEYS.items():
        if not fits(record[key], hint):
            raise ValueError(f"{where}.{key}: {record[key]!r:.80} is not of type {_type_text(hint)}")
    for key in ("id", "sha256"):
        if record["weights"] is not None and not isinstance(record["weights"].get(key), str):
            raise ValueError(f'{where}.weights: has no text under "{key}"')
    size = record["settings"].get("size")
    sides = size if isinstance(size, list) else [] if size is None else [size]
    if size is not None and (
        (isinstance(size, list) and len(size) != 2)
        or not all(fits(side, int) and 0 < side <= MAX_SIDE for side in sides)
    ):
        raise ValueError(f"{where}.settings.size: {size!r:.80} is not a width and a height of 1 to {MAX_SIDE} pixels")


def _type_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
