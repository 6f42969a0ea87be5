"""Tokenizers of `transformers` models: from questions to the ids of pieces of words, and back to text for people.

A tokenizer is kept as the bytes of its files, so that checkpoints and model directories carry all of it. No code that
comes with a model is run, and nothing is downloaded unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from coattn._internal.files import require, sha256_of_file
from coattn._internal.hub_cache import CONFIG, WEIGHTS, check_has_config, explained, matching, no_progress_bar
from coattn.text.tokenizer import normalize_text

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")
FILES = (CONFIG, "model.safetensors.index.json", *WEIGHTS, *TOKENIZER_FILES, "README.md", "LICENSE*")
KIND = "text encoder"
# Settings of a config about the origin and storage of code, kernels or weights, which are not the architecture.
_NOT_ARCHITECTURE = frozenset(
    {"auto_map", "quantization_config", "dtype", "torch_dtype", "transformers_version", "architectures", "id2label"}
    | {"label2id", "task_specific_params", "gradient_checkpointing", "attn_implementation", "experts_implementation"}
)


class PretrainedTokenizer:
    """The question vocabulary of a pretrained text encoder; used like `coattn.text.vocabulary.Vocabulary`.

    Args:
        files: the encoder's config.json and the files of its tokenizer, by name.
        source: the name of the tokenizer in messages.

    Attributes:
        files: as given.
        config: the architecture of the encoder, as JSON text; see `coattn.text.encoders`.
        dim: width of the encoder's hidden states.
        max_tokens: the largest number of tokens of a question that tokenizer and encoder accept.
        min_tokens: the number of special tokens of each question, plus one.

    Raises:
        ValueError: transformers cannot make a tokenizer of them.
        ModuleNotFoundError: `transformers` is not installed.
    """

    def __init__(self, files: Mapping[str, bytes], source: str) -> None:
        transformers = require("transformers", "text")
        self.files, self.source = dict(files), source
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._tokenizer = load_tokenizer(transformers, Path(folder), source)
        self.config = _architecture(self.files.get(CONFIG, b""), source)
        config = encoder_config(self.config, source)
        self.dim: int = config.hidden_size
        self._num_ids: int = config.vocab_size
        with explained(source, kind=KIND):
            self.max_tokens = token_limit(self._tokenizer, config)
            self.min_tokens: int = self._tokenizer.num_special_tokens_to_add() + 1
            num_tokens = len(self._tokenizer)
        if num_tokens > self._num_ids:
            raise ValueError(f"{source}: the tokenizer has {num_tokens} ids, the encoder {self._num_ids}")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the files of a folder; see `coattn._internal.hub_cache.local_folder`.

        Raises:
            ValueError: it has no config.json, or as the class says.
        """
        folder = Path(folder)
        check_has_config(folder, kind=KIND)
        paths = [folder / CONFIG, *matching(folder, TOKENIZER_FILES)]
        return cls({path.name: path.read_bytes() for path in paths}, str(folder))

    def __len__(self) -> int:
        """Number of ids: the rows of the encoder's own embedding."""
        return self._num_ids

    def encode_all(self, questions: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """The ids of each question's tokens, special tokens included, which stay when it is cut to `max_tokens`.

        Text is normalized first (`coattn.text.tokenizer.normalize_text`).
        """
        return self._encoding(questions, max_tokens)["input_ids"] if questions else []

    def encode(self, question: str, *, max_tokens: int | None = None) -> list[int]:
        """The ids of one question; see `encode_all`."""
        return self.encode_all([question], max_tokens=max_tokens)[0]

    def tokens(self, question: str, *, max_tokens: int | None = None) -> list[str]:
        """The tokens of a question as text for people, cut as in `encode`."""
        ids = self.encode(question, max_tokens=max_tokens)
        return [
            self._tokenizer.decode([number]).strip() or token
            for number, token in zip(ids, self._tokenizer.convert_ids_to_tokens(ids), strict=True)
        ]

    def word_numbers(self, question: str, *, max_tokens: int | None = None) -> list[int | None]:
        """The number of the word that each token belongs to, None for tokens that the encoder adds; cut as `encode`."""
        encoded = self._encoding([question], max_tokens)
        try:
            return encoded.word_ids(0)
        except ValueError:  # a tokenizer without word boundaries: each token is a word
            added = self._tokenizer.get_special_tokens_mask(encoded["input_ids"][0], already_has_special_tokens=True)
            return [None if special else place for place, special in enumerate(added)]

    def _encoding(self, questions: Sequence[str], max_tokens: int | None) -> Any:
        """The tokenizer's output for normalized questions."""
        cut = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        return self._tokenizer([normalize_text(question) for question in questions], **cut, verbose=False)

    def limit(self, max_tokens: int | None) -> int:
        """`max_tokens`, or the largest number that the encoder accepts.

        Raises:
            ValueError: this encoder does not accept it.
        """
        if max_tokens is not None and not self.min_tokens <= max_tokens <= self.max_tokens:
            raise ValueError(
                f"{self.source}: max_tokens is {max_tokens}, must be from {self.min_tokens} to {self.max_tokens} for "
                "this encoder"
            )
        return max_tokens or self.max_tokens

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the files, byte for byte, into a new folder from which `load` makes the same tokenizer."""
        Path(folder).mkdir(parents=True)
        for name, content in self.files.items():
            (Path(folder) / name).write_bytes(content)

    def to_json(self) -> dict[str, Any]:
        """The files as JSON values, each byte as a character."""
        return {"files": {name: content.decode("latin-1") for name, content in self.files.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> Self:
        """The tokenizer that `to_json` described."""
        return cls({name: content.encode("latin-1") for name, content in value["files"].items()}, source)


def load_tokenizer(transformers: Any, folder: Path, source: str) -> Any:
    """The tokenizer in a folder; `source` is its name in messages."""
    with explained(source, folder, kind=KIND), no_progress_bar(transformers.utils.logging):
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def encoder_config(text: str, source: str) -> Any:
    """The config of `transformers` that a JSON text describes.

    Raises:
        ValueError: it is not the config of a text encoder, or needs more than the layers of `transformers`.
    """
    transformers = require("transformers", "text")
    values = _read_values(text, source)
    kind = values.pop("model_type", None)
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"{source}: transformers knows no encoder of the type {kind!r}")
    foreign = [key for key in values if key in _NOT_ARCHITECTURE or key.startswith("_") or "backbone" in key]
    nested = [key for key, value in values.items() if isinstance(value, dict) and "model_type" in value]
    if foreign or nested:
        raise ValueError(f"{source}: a config with {', '.join(foreign + nested)} is not that of a plain text encoder")
    with explained(source, kind=KIND):
        config = transformers.CONFIG_MAPPING[kind].from_dict(values)
        sizes = (config.hidden_size, config.vocab_size, config.num_hidden_layers)
    if not all(isinstance(size, int) and 0 < size < 1 << 24 for size in sizes) or sizes[2] > 1000:
        raise ValueError(f"{source}: an encoder cannot have the width, number of ids and number of layers {sizes}")
    return config


def _architecture(content: bytes, source: str) -> str:
    """The part of a config.json that describes the layers, as JSON text."""
    try:
        values = _read_values(content.decode("utf-8-sig"), source)
    except UnicodeDecodeError:
        raise ValueError(f"{source}: {CONFIG} is not UTF-8 text") from None
    kept = {key: value for key, value in values.items() if key not in _NOT_ARCHITECTURE and not key.startswith("_")}
    return json.dumps(kept, sort_keys=True)


def _read_values(text: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{source}: the config of the text encoder is not a JSON object")
    return values


def token_limit(tokenizer: Any, config: Any) -> int:
    """The largest number of tokens that both the tokenizer and the positions of the encoder accept."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(tokenizer.model_max_length, positions, 8192)  # tokenizers without a limit say 10^30


def joint_sha256(files: Sequence[Path]) -> str:
    """The SHA-256 of one file, or that of the names and hashes of several files."""
    if len(files) == 1:
        return sha256_of_file(files[0])
    return hashlib.sha256("\n".join(f"{path.name} {sha256_of_file(path)}" for path in files).encode()).hexdigest()
