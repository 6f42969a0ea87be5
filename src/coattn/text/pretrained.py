"""Pretrained text encoders of `transformers`, frozen: questions to token embeddings.

Only weights in the safetensors format are read and no code that comes with a model is run. Nothing is downloaded unless
that is asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from coattn._internal.files import atomic_folder, require, sha256_of_file
from coattn._internal.hub_cache import (
    CONFIG,
    WEIGHTS,
    check_has_config,
    explained,
    local_folder,
    matching,
    no_progress_bar,
)
from coattn.text.pretrained_tokenizer import FILES, KIND, TOKENIZER_FILES, PretrainedTokenizer, joint_sha256

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


class TextEncoder:
    """A frozen encoder: each question becomes one row per token, special tokens included.

    Rows are the last hidden states in float32. Questions are encoded in batches; what else is in the batch changes a
    row by rounding only (about 1e-6).

    Args:
        folder: where the files of the encoder are.
        tokenizer: its own.
        model: of `transformers`; gives `last_hidden_state`.
        record: what this encoder is; see `load`.

    Attributes:
        record: `{"name", "settings", "weights": {"id", "sha256"}, "versions"}`, as feature stores and models keep it.
        dim: width E of a row.
        max_tokens: longer questions are cut to so many tokens; their special tokens stay.
    """

    def __init__(self, folder: Path, tokenizer: PretrainedTokenizer, model: Any, record: dict[str, Any]) -> None:
        self.record = record
        self.dim: int = model.config.hidden_size
        self.max_tokens: int = record["settings"]["max_tokens"]
        self._folder = folder
        self.tokenizer = tokenizer
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
        require("transformers", "text")
        folder = local_folder(name_or_folder, allow_download, kind=KIND, files=FILES)
        model = load_model(folder)
        tokenizer = PretrainedTokenizer.load(folder)
        limit = tokenizer.limit(max_tokens)
        record = encoder_record(name_or_folder, folder, kind=model.config.model_type, max_tokens=limit)
        return cls(folder, tokenizer, model.to(device), record)

    def encode(self, questions: Sequence[str], *, batch_size: int = 64) -> list[Tensor]:
        """Encode questions.

        Args:
            questions: any texts, also empty ones (the special tokens alone).
            batch_size: how many run at once; similar lengths go together.

        Returns:
            For each question its rows, (T_i, E) float32 on the CPU.
        """
        ids = self.tokenizer.encode_all(questions, max_tokens=self.max_tokens)
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        encoded: list[Tensor] = [torch.empty(0)] * len(ids)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for number, rows in zip(batch, self._run([ids[number] for number in batch]), strict=True):
                encoded[number] = rows
        return encoded

    def tokens(self, question: str) -> list[str]:
        """The token that each row of `encode([question])` stands for, as text for people."""
        return self.tokenizer.tokens(question, max_tokens=self.max_tokens)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the encoder's files, byte for byte, into a new folder from which `load` gives the same encoder.

        Raises:
            OSError: the folder exists, or cannot be written.
        """
        target = Path(folder)
        if target.exists():
            raise FileExistsError(f"{target} exists already; the files of an encoder go into a new folder")
        with atomic_folder(target) as partial:
            for path in matching(self._folder, FILES):
                shutil.copyfile(path, partial / path.name)

    def is_saved_in(self, folder: str | os.PathLike[str]) -> bool:
        """Whether a folder holds this encoder's files, whole and unchanged (compared by SHA-256)."""
        files = matching(self._folder, FILES)
        copies = [Path(folder) / path.name for path in files]
        return all(
            copy.is_file() and sha256_of_file(copy) == sha256_of_file(path)
            for path, copy in zip(files, copies, strict=True)
        )

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


def encoder_record(
    name_or_folder: str | os.PathLike[str], folder: Path, *, kind: str, max_tokens: int
) -> dict[str, Any]:
    """What an encoder is: `{"name", "settings", "weights": {"id", "sha256"}, "versions"}`, plain values.

    Args:
        name_or_folder: as the user named it; of a folder the last part is kept, which says something elsewhere too.
        folder: its files.
        kind: of model, as `transformers` calls it.
        max_tokens: longer questions are cut.

    Raises:
        ValueError: there are no weights, or only pickled ones.
    """
    path = Path(name_or_folder)
    return {
        "name": f"transformers {kind}",
        "settings": {
            "max_tokens": max_tokens,
            "config_sha256": sha256_of_file(folder / CONFIG),
            "tokenizer_sha256": joint_sha256(matching(folder, TOKENIZER_FILES)),
        },
        "weights": {
            "id": path.resolve().name if path.is_dir() else str(name_or_folder),
            "sha256": joint_sha256(_weight_files(folder)),
        },
        "versions": {"transformers": require("transformers", "text").__version__, "torch": str(torch.__version__)},
    }


def _weight_files(folder: Path) -> list[Path]:
    check_has_config(folder, kind=KIND)
    weights = matching(folder, WEIGHTS)
    if weights:
        return weights
    if pickled := matching(folder, _PICKLED):
        raise ValueError(
            f"{folder}: the weights are in {pickled[0].name}, a format whose reading can run code; only "
            "model.safetensors is read. If you trust it, convert: AutoModel.from_pretrained(...).save_pretrained(...)"
        )
    raise ValueError(f"{folder}: there is no model.safetensors")


def load_model(folder: Path) -> Any:
    """The encoder in a folder, of `transformers`, in float32; of an encoder-decoder its encoder.

    Raises:
        ValueError: its weights are pickled or incomplete, it needs code of its own, or it is not a text encoder.
    """
    transformers = require("transformers", "text")
    _weight_files(folder)
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    with explained(str(folder), kind=KIND), no_progress_bar(transformers.utils.logging):
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **options
        )
    if hasattr(model.config, "vision_config"):
        raise ValueError(f"{folder}: a model of images and text ({model.config.model_type}), not a plain text encoder")
    unused = ["pooler."]
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
        unused = ["decoder."]
    # transformers gives random values to weights that the file lacks.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(tuple(unused))):
        raise ValueError(f"{folder}: the weights lack {len(missing)} tensors of the encoder, for example {missing[0]}")
    return model
