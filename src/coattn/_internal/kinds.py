"""Say what a file or folder is, for messages about one of the wrong kind."""

from __future__ import annotations

import os
from pathlib import Path

# A file in a folder, and the kind of the folder.
_MARKS = {
    "config.json": "a model directory",
    "runtime.json": "an exported model",
    "manifest.json": "a feature store",
    "images.json": "a prepared data set",
}
# The first bytes of a file, and its kind.
_SIGNATURES = {
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"II*\0": "an image",
    b"MM\0*": "an image",
    b"RIFF": "an image",
    b"BM": "an image",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF file",
}
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".parquet", ".arrow"), "a table"),
    **dict.fromkeys((".json", ".jsonl"), "a JSON file"),
    **dict.fromkeys((".yaml", ".yml"), "a configuration"),
    ".ckpt": "a checkpoint",
    ".safetensors": "a file of weights",
    ".onnx": "an ONNX graph",
}


def kind_of_content(start: bytes, name: str) -> str:
    """The kind of a file by its first bytes and its name, for example "a table"; "a file" if they do not say it."""
    if not start:
        return "an empty file"
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    return _SUFFIXES.get(Path(name).suffix.lower(), "a file")


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind of a file, or of a folder by the files in it; "missing" if there is neither.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return next((kind for mark, kind in _MARKS.items() if (path / mark).is_file()), "a folder")
    if not path.is_file():
        return "a special file" if path.exists() else "missing"
    with path.open("rb") as file:
        return kind_of_content(file.read(8), path.name)
