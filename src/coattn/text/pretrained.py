"""Pretrained text encoders of `transformers`, frozen: questions to token embeddings.

Only weights in the safetensors format are read and no code that comes with a model is run. Nothing is downloaded unless
that is asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from coattn.files import require, sha256_of_file

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_FILES = ("config.json", "model.safetensors.index.json", *_WEIGHTS, *_TOKENIZER_FILES, "README.md", "LICENSE*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


class TextEncoder:
    """A frozen encoder: each question becomes one row per token, special tokens included.

    Rows are the last hidden states in float32. Questions are encoded in batches; what else is in the batch changes a
    row by rounding only (about 1e-6).

    Args:
        folder: where the files of the encoder are.
        tokenizer: of `transformers`.
        model: of `transformers`; gives `last_hidden_state`.
        record: what this encoder is; see `load`.

    Attributes:
        record: `{"name", "settings", "weights": {"id", "sha256"}, "versions"}`, as feature stores and models keep it.
        dim: width E of a row.
        max_tokens: longer questions are cut to so many tokens; their special tokens stay.
    """

    def __init__(self, folder: Path, tokenizer: Any, model: Any, record: dict[str, Any]) -> None:
        self.record = record
        self.dim: int = model.config.hidden_size
        self.max_tokens: int = record["settings"]["max_tokens"]
        self._folder = folder
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        name_or_folder: str | os.PathLike[str],
        *,
        allow_download: bool = False,
        max_tokens: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load an encoder: BERT, RoBERTa, MPNet, a sentence encoder, the encoder half of T5, and the like.

        Args:
            name_or_folder: a folder with `config.json`, a tokenizer and `model.safetensors`, or a name on the Hub.
            allow_download: fetch a name that is not on this machine; otherwise there is no network access at all.
            max_tokens: cut questions to so many tokens; None takes the limit of the encoder.
            device: where to run.

        Raises:
            ValueError: the encoder is not on this machine, its weights are pickled or incomplete, it needs code of its
                own, or it is not a text encoder.
            ModuleNotFoundError: `transformers` is not installed.
        """
        transformers = require("transformers", "text")
        folder = _local_folder(str(name_or_folder), allow_download)
        weights = _weight_files(folder)
        tokenizer, model = _load_parts(transformers, folder)
        limit = _token_limit(tokenizer, model.config)
        least = tokenizer.num_special_tokens_to_add() + 1
        if max_tokens is not None and not least <= max_tokens <= limit:
            raise ValueError(f"{folder}: max_tokens is {max_tokens}, must be from {least} to {limit} for this encoder")
        settings = {
            "max_tokens": max_tokens or limit,
            "config_sha256": sha256_of_file(folder / "config.json"),
            "tokenizer_sha256": _joint_sha256(_matching(folder, _TOKENIZER_FILES)),
        }
        record = {
            "name": f"transformers {model.config.model_type}",
            "settings": settings,
            "weights": {"id": _weights_id(name_or_folder), "sha256": _joint_sha256(weights)},
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        }
        return cls(folder, tokenizer, model.to(device), record)

    def encode(self, questions: Sequence[str], *, batch_size: int = 64) -> list[Tensor]:
        """Encode questions.

        Args:
            questions: any texts, also empty ones (the special tokens alone).
            batch_size: how many run at once; similar lengths go together.

        Returns:
            For each question its rows, (T_i, E) float32 on the CPU.
        """
        ids = [self._ids(question) for question in questions]
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        encoded: list[Tensor] = [torch.empty(0)] * len(ids)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for number, rows in zip(batch, self._run([ids[number] for number in batch]), strict=True):
                encoded[number] = rows
        return encoded

    def tokens(self, question: str) -> list[str]:
        """The token that each row of `encode([question])` stands for, as text for people."""
        ids = self._ids(question)
        return [
            self._tokenizer.decode([number]).strip() or token
            for number, token in zip(ids, self._tokenizer.convert_ids_to_tokens(ids), strict=True)
        ]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the encoder's files, byte for byte, into a new folder from which `load` gives the same encoder.

        Raises:
            OSError: the folder exists, or cannot be written.
        """
        target = Path(folder)
        if target.exists():
            raise FileExistsError(f"{target} exists already; the files of an encoder go into a new folder")
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in _matching(self._folder, _FILES):
            shutil.copyfile(path, partial / path.name)
        partial.rename(target)

    def _ids(self, question: str) -> list[int]:
        return self._tokenizer(question, truncation=True, max_length=self.max_tokens)["input_ids"]

    @torch.no_grad()
    def _run(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Token ids of a batch to the rows of each question."""
        lengths = torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        # Padded with id 0, whatever it means: it is masked, and its rows are cut off.
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        mask = torch.arange(width) < lengths[:, None]
        device = next(self._model.parameters()).device
        hidden = self._model(input_ids=padded.to(device), attention_mask=mask.long().to(device)).last_hidden_state
        return [rows[:length].clone() for rows, length in zip(hidden.float().cpu(), lengths.tolist(), strict=True)]


def _local_folder(name: str, allow_download: bool) -> Path:
    if Path(name).is_dir():
        return Path(name)
    hub, errors = require("huggingface_hub", "text"), require("huggingface_hub.errors", "text")
    missing = f"text encoder {name!r} is neither a folder nor on this machine"
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(_FILES), local_files_only=not allow_download))
    except errors.LocalEntryNotFoundError:
        hint = "; is the network reachable?" if allow_download else "; give its folder, or say --allow-download"
        raise ValueError(missing + hint) from None
    except (errors.HFValidationError, errors.RepositoryNotFoundError):
        raise ValueError(f"{missing}{', nor on the Hub' if allow_download else ''}") from None


def _weights_id(name_or_folder: str | os.PathLike[str]) -> str:
    """The name as given; of a folder the last part only, which says something on other machines too."""
    path = Path(name_or_folder)
    return path.resolve().name if path.is_dir() else str(name_or_folder)


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: there is no config.json; a text encoder is a folder as save_pretrained() writes it"
        )
    weights = _matching(folder, _WEIGHTS)
    if weights:
        return weights
    if pickled := _matching(folder, _PICKLED):
        raise ValueError(
            f"{folder}: the weights are in {pickled[0].name}, a format whose reading can run code; only "
            "model.safetensors is read. If you trust it, convert: AutoModel.from_pretrained(...).save_pretrained(...)"
        )
    raise ValueError(f"{folder}: there is no model.safetensors")


def _joint_sha256(files: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, that of their names and hashes."""
    if len(files) == 1:
        return sha256_of_file(files[0])
    return hashlib.sha256("\n".join(f"{path.name} {sha256_of_file(path)}" for path in files).encode()).hexdigest()


def _load_parts(transformers: Any, folder: Path) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder."""
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_progress_bar(transformers.utils.logging):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            model, report = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:  # of many kinds, for a damaged or unknown model
        summary = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: transformers cannot load this text encoder: {summary}") from error
    if hasattr(model.config, "vision_config"):
        raise ValueError(f"{folder}: a model of images and text ({model.config.model_type}), not a plain text encoder")
    unused = ["pooler."]
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
        unused = ["decoder."]
    # transformers gives random values to weights that the file lacks.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(tuple(unused))):
        raise ValueError(f"{folder}: the weights lack {len(missing)} tensors of the encoder, for example {missing[0]}")
    return tokenizer, model


@contextmanager
def _no_progress_bar(logging: Any) -> Iterator[None]:
    """Loading takes a second or less; a bar for it would stand in the way of the command's own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _token_limit(tokenizer: Any, config: Any) -> int:
    """The most tokens that both the tokenizer and the positions of the encoder admit."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(tokenizer.model_max_length, positions, 8192)  # tokenizers without a limit say 10^30
