"""The exported folder: its files, and a strict reader.

runtime.json              the format, the calibration, the image extractor, and a SHA-256 of every other file
model.onnx                the model: questions and images to logits, or to what a decoder reads
image.onnx                optional: the part of the model that needs no question; model.onnx reads its outputs
decoder.onnx              only of a model that writes its answers: from a word to the next one
maps.onnx                 optional: the same with the attention maps as further outputs
extractor.onnx            optional: the network of the image extractor
question_vocabulary.json  the words of questions; or tokenizer.json, the tokenizer of a pretrained text encoder
text_encoder.onnx         optional: the text encoder, if it was not trained with the model
answers.json              the answers, in the order of the logits, or the words of answers
certificate.json          optional: the risk certificates of the model
index.safetensors         optional: the index of the training images
README.md                 the card: the model's own, and how this export was checked
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from coattn._internal.files import read_json, sha256_of_file
from coattn.text.answer_words import AnswerWords, answers_from_json
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

from .generator import MAX_SEARCH, SEARCH
from .text import QuestionTokenizer

FORMAT, VERSION = "coattn export", 1
MAX_SIDE = 8192  # pixels of an image that a network may read
CONFIG, CARD = "runtime.json", "README.md"
MODEL, IMAGE_SIDE, DECODER = "model.onnx", "image.onnx", "decoder.onnx"
MAPS, EXTRACTOR = "maps.onnx", "extractor.onnx"
QUESTIONS, ANSWERS = "question_vocabulary.json", "answers.json"
TOKENIZER, TEXT_ENCODER = "tokenizer.json", "text_encoder.onnx"
_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "precision": str,
    "activation": str,
    "temperature": float,
    "max_tokens": (int, type(None)),
    "metric": str,
    "extractor": dict,
    "grid": (dict, type(None)),
    "maps": list,
    "search": (dict, type(None)),
    "sha256": dict,
}


@dataclass(frozen=True)
class ExportedFolder:
    """An exported model, read but not yet run.

    Attributes:
        folder: the directory.
        config: the values of `runtime.json`.
        questions: the vocabulary of questions, or the tokenizer of a text encoder.
        answers: the answers, in the order of the logits, or the words of answers.
    """

    folder: Path
    config: dict[str, Any]
    questions: Vocabulary | QuestionTokenizer
    answers: AnswerVocabulary | AnswerWords

    def graph(self, name: str) -> bytes:
        """The bytes of an ONNX file, checked against the recorded hash.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: the file is not the one that was exported.
        """
        path = self.folder / name
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.config["sha256"].get(name):
            raise ValueError(f"{path}: damaged or replaced (its SHA-256 is not the one in {CONFIG}); export again")
        return content


def read_folder(folder: Path) -> ExportedFolder:
    """Read an exported folder strictly.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged, or the folder was written by a newer version; the message names the file.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: not an exported model (it has no {CONFIG}); make one with coattn export")
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f'{path}: not an exported model of coattn (its "format" is not "{FORMAT}")')
    if config.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {config.get('version')!r}, but this coattn reads version {VERSION}; update coattn"
        )
    for key, kind in _KEYS.items():
        if key not in config or not isinstance(config[key], kind) or isinstance(config[key], bool):
            raise ValueError(f"{path}: {key!r} is missing or has the wrong type; export again")
    if config["activation"] not in ("sigmoid", "softmax"):
        raise ValueError(f"{path}: activation is {config['activation']!r:.40}, it must be sigmoid or softmax")
    if not 0 < config["temperature"] < math.inf:
        raise ValueError(f"{path}: temperature is {config['temperature']!r:.40}, it must be a positive number")
    record = config["extractor"]
    if not isinstance(record.get("name"), str) or not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path}: the record of the image extractor lacks its name or settings; export again")
    if config["grid"] is not None:
        _check_grid(config["grid"], str(path))
    search = config["search"]
    if search is not None and not (
        search.keys() == set(SEARCH)
        and all(type(search[key]) is int and 1 <= search[key] <= MAX_SEARCH for key in ("num_beams", "max_length"))
        and type(search["length_penalty"]) in (int, float)
        and math.isfinite(search["length_penalty"])
    ):
        raise ValueError(f"{path}: the settings of the search are damaged; export again")
    for name, digest in config["sha256"].items():
        read_later = name == CARD or name.endswith(".onnx")  # the card may be edited; `graph` checks the others
        if not read_later and sha256_of_file(folder / name) != digest:
            raise ValueError(
                f"{folder / name}: damaged or replaced (its SHA-256 is not the one in {CONFIG}); export again"
            )
    has_tokenizer = TOKENIZER in config["sha256"]
    questions = (
        QuestionTokenizer(folder / TOKENIZER) if has_tokenizer else _read(folder / QUESTIONS, Vocabulary.from_json)
    )
    return ExportedFolder(folder, config, questions, _read(folder / ANSWERS, answers_from_json))


def _check_grid(grid: dict[str, Any], where: str) -> None:
    """Raise ValueError unless this describes how `extractor.onnx` sees an image: sides in pixels, and boxes."""
    size, boxes = grid.get("size"), grid.get("boxes")
    right = {
        "size": isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= MAX_SIDE for n in size),
        "resample": isinstance(grid.get("resample"), str) and grid["resample"].upper() in Image.Resampling.__members__,
        "boxes": isinstance(boxes, list)
        and all(isinstance(box, list) and len(box) == 4 and {*map(type, box)} <= {int, float} for box in boxes),
    }
    if wrong := [name for name, fine in right.items() if not fine]:
        raise ValueError(f"{where}: grid.{wrong[0]} is missing or damaged; export again")


def _read(path: Path, from_json: Callable[[Any], Any]) -> Any:
    """The value of a JSON file."""
    try:
        return from_json(read_json(path))
    except ValueError as error:
        raise ValueError(error if path.name in str(error) else f"{path}: {error}") from None
