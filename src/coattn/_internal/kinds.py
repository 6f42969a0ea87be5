"""Say what a file or folder is, for messages about one of the wrong kind."""

from __future__ import annotations

import os
import re
from pathlib import Path

# A file in a folder, and the kind of the folder.
_MARKS = {
    "config.json": "a model directory",
    "runtime.json": "an exported model",
    "manifest.json": "a feature store",
    "images.json": "a prepared data set",
}
# The first bytes of a file, and its kind. The signatures of BMP and WebP alone may also begin a text or a sound.
_SIGNATURES = {
    rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|BM.{4}\0\0|RIFF.{4}WEBP": "an image",
    rb"\x89HDF": "an HDF5 file",
    rb"%PDF": "a PDF file",
    rb"\x1f\x8b": "a gzipped file",
}
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv"), "a table"),
    ".parquet": "a Parquet file",
    ".arrow": "an Arrow file",
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".json", ".jsonl"), "a JSON file"),
    **dict.fromkeys((".yaml", ".yml"), "a configuration"),
    ".ckpt": "a checkpoint",
    ".safetensors": "a file of weights",
    ".onnx": "an ONNX graph",
}


def kind_of_content(start: bytes, name: str) -> str:
    """The kind of a file by its first 12 bytes and its name, for example "a table"."""
    if not start:
        return "an empty file"
    for signature, kind in _SIGNATURES.items():
        if re.match(signature, start, re.DOTALL):
            return kind
    return _SUFFIXES.get(Path(name).suffix.lower(), "another kind of file")


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
        return kind_of_content(file.read(12), path.name)
