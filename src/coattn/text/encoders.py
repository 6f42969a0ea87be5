"""Text encoders of `transformers`: frozen (`TextEncoder`), or inside a model and trained with it
(`FinetunedQuestionEncoder`).

Only weights in the safetensors format are read, and no code that comes with a model is run. Nothing is downloaded
unless that is asked for.

Letters: B batch, T tokens, E width of the encoder, D width of the model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

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
from coattn.nn.question import Question
from coattn.text.pretrained_tokenizer import (
    FILES,
    KIND,
    TOKENIZER_FILES,
    PretrainedTokenizer,
    encoder_config,
    joint_sha256,
)

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


class TextEncoder:
    """A frozen encoder: each question becomes one row per token, special tokens included.

    Rows are the last hidden states in float32. Questions are encoded in batches; the other questions of a batch change
    a row by rounding only (about 1e-6).

    Args:
        folder: the folder with the files of the encoder.
        tokenizer: the encoder's tokenizer.
        model: the model of `transformers`, whose output has `last_hidden_state`.
        record: the record of this encoder, see `encoder_record`.

    Attributes:
        record: `{"name", "settings", "weights": {"id", "sha256"}, "versions"}`, as feature stores and models keep it.
        dim: width E of a row.
        max_tokens: longer questions are cut to this number of tokens; their special tokens stay.
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
            max_tokens: the number of tokens to which questions are cut; None is the limit of the encoder.
            device: where the encoder runs.

        Raises:
            ValueError: the encoder is not on this machine, its weights are pickled or incomplete, it needs code that
                comes with it, it is not a text encoder, or it reads padding.
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
            batch_size: the number of questions that run at once; similar lengths go together.

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
        """The token of each row of `encode([question])`, as text for people."""
        return self.tokenizer.tokens(question, max_tokens=self.max_tokens)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the encoder's files, byte for byte, into a new folder from which `load` makes the same encoder.

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
        """The rows of each question, from the token ids of a batch."""
        lengths = torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        # (B, T): padding has id 0, which may be a word of the encoder; it is masked and its rows are cut off.
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        mask = torch.arange(width) < lengths[:, None]
        device = next(self._model.parameters()).device
        hidden = self._model(input_ids=padded.to(device), attention_mask=mask.long().to(device)).last_hidden_state
        return [rows[:length].clone() for rows, length in zip(hidden.float().cpu(), lengths.tolist(), strict=True)]


def encoder_record(
    name_or_folder: str | os.PathLike[str], folder: Path, *, kind: str, max_tokens: int
) -> dict[str, Any]:
    """The record of an encoder: `{"name", "settings", "weights": {"id", "sha256"}, "versions"}`, plain values.

    Args:
        name_or_folder: the encoder as the user named it; only the last part of a folder is kept.
        folder: the folder with its files.
        kind: the type of the model in `transformers`.
        max_tokens: the number of tokens to which questions are cut.

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
    """The `transformers` model in a folder, in float32; only the encoder of an encoder-decoder.

    Raises:
        ValueError: its weights are pickled or incomplete, it needs code that comes with it, it is not a text encoder,
            or it reads padding.
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
    # transformers fills weights that the file lacks with random values.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(tuple(unused))):
        raise ValueError(f"{folder}: the weights lack {len(missing)} tensors of the encoder, for example {missing[0]}")
    with explained(str(folder), kind=KIND):
        reads_padding = _reads_padding(model.eval())
    if reads_padding:
        raise ValueError(
            f"{folder}: {model.config.model_type} reads padding, so the rows of a question would depend on the other "
            "questions of its batch; use another encoder, for example BERT or MPNet"
        )
    return model


@torch.no_grad()
def _reads_padding(model: Any) -> bool:
    """Whether masked tokens change the rows of the others.

    They do in some models of transformers 5.24.0: the convolutions of ConvBERT and CANINE mix neighbors, YOSO and
    Nystromformer attend to padding, FNet has no mask, and MobileBERT reads the embedding of the next token.
    """
    ids, mask = torch.arange(8)[None], torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]])  # (1, T)
    alone = model(input_ids=ids[:, :4], attention_mask=mask[:, :4]).last_hidden_state
    padded = model(input_ids=ids * mask, attention_mask=mask).last_hidden_state[:, :4]
    return bool((alone - padded).abs().max() > 1e-3 * alone.abs().max())


class FinetunedQuestionEncoder(nn.Module):
    """A text encoder on the ids of its tokenizer, followed by a question encoder on its embeddings.

    The text encoder is built with random weights, because a saved model brings its weights; `load_weights` and
    `pretrained` load the published ones. It is the attribute `transformer`, without the pooler that some encoders have
    for classification. Train it with a lower learning rate than the rest of the model, about 2e-5.

    Args:
        encoder: the question encoder that reads the embeddings (B, T, E), with `question_dim` E.
        config: architecture of the text encoder as JSON text, see `PretrainedTokenizer.config`: `model_type` and the
            settings that `transformers` knows for it. BERT, MiniLM, DistilBERT, RoBERTa, MPNet, ELECTRA, DeBERTa,
            ModernBERT, the encoder half of T5 and the like.
        frozen_layers: the embedding and this number of the lowest layers are not trained; 0 trains everything.
        dropout: the rate of all dropout layers of the text encoder; None keeps the published rates.

    Raises:
        ValueError: the config is not that of a plain text encoder, `encoder` reads another width, or the text encoder
            has fewer layers than `frozen_layers`.
        ModuleNotFoundError: `transformers` is not installed.
    """

    def __init__(
        self, encoder: nn.Module, *, config: str, frozen_layers: int = 0, dropout: float | None = None
    ) -> None:
        super().__init__()
        made = encoder_config(config, "text encoder")
        if getattr(encoder, "question_dim", None) != made.hidden_size:
            raise ValueError(
                f"the embeddings of the text encoder have width {made.hidden_size}, but the question encoder reads "
                f"{getattr(encoder, 'question_dim', None)}"
            )
        self.encoder, self.config, self.frozen_layers, self.dropout = encoder, config, frozen_layers, dropout
        self.num_words, self.question_dim, self.dim = made.vocab_size, None, encoder.dim
        self._padding = getattr(made, "pad_token_id", None) or 0
        self.transformer = _bare(_built(made))
        if dropout is not None:
            for module in self.transformer.modules():
                if isinstance(module, nn.Dropout):
                    module.p = dropout
        _freeze(self.transformer, frozen_layers, made.num_hidden_layers)

    @classmethod
    def pretrained(
        cls,
        folder: str | os.PathLike[str],
        encoder: nn.Module,
        *,
        frozen_layers: int = 0,
        dropout: float | None = None,
    ) -> Self:
        """The text encoder in a folder, with its weights; see the class and `load_weights`."""
        config = PretrainedTokenizer.load(folder).config
        module = cls(encoder, config=config, frozen_layers=frozen_layers, dropout=dropout)
        module.load_weights(folder)
        return module

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Load the weights of a text encoder from a folder with config.json and model.safetensors.

        Raises:
            ValueError: they are not safetensors, incomplete, or those of another architecture.
        """
        weights = _bare(load_model(Path(folder))).state_dict()
        try:
            self.transformer.load_state_dict(weights)
        except RuntimeError as error:
            what = " ".join(str(error).split("\n")[1:2]).strip()
            raise ValueError(f"{folder}: not the text encoder that the model is built for: {what}") from None

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode ids (B, T) int64 of the encoder's tokenizer, with their mask (B, T).

        Raises:
            ValueError: embeddings were given, or words of an ordinary vocabulary are expected.
        """
        if question.dim() != 2 or question.is_floating_point():
            raise ValueError(f"expected token ids (B, T) int64, got {question.dtype} {tuple(question.shape)}")
        # (B, T): some encoders count positions by the id of padding. Attention to nothing at all can be NaN, so the
        # first token of an empty question is read; its embedding is zeroed below.
        ids = question.masked_fill(~mask, self._padding)
        read = mask.clone()
        read[:, 0] |= ~mask.any(1)
        hidden = self.transformer(input_ids=ids, attention_mask=read.long(), return_dict=True).last_hidden_state
        return self.encoder(hidden * mask[:, :, None], mask)


def _built(config: Any) -> Any:
    transformers = require("transformers", "text")
    with explained(KIND, kind=KIND):
        if transformers.MODEL_MAPPING[type(config)].main_input_name != "input_ids":
            raise ValueError(f"{config.model_type} does not read text")
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    return model.get_encoder() if config.is_encoder_decoder else model


def _bare(model: Any) -> Any:
    """The model without its pooler, which would get no gradient, and with all of its buffers in the saved state."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    for module in model.modules():
        for name in list(module._non_persistent_buffers_set):
            module.register_buffer(name, module.get_buffer(name).clone(), persistent=True)
    return model


def _freeze(model: nn.Module, frozen_layers: int, num_layers: int) -> None:
    """Freeze the embeddings and the lowest layers."""
    if not frozen_layers:
        return
    stacks = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == num_layers)
    layers = next(stacks, None)
    if layers is None or not 0 < frozen_layers <= num_layers:
        raise ValueError(f"cannot freeze {frozen_layers} layers of a text encoder with {num_layers} layers")
    parameters = list(model.parameters())  # in the order of registration: those before the layers are embeddings
    first = next(number for number, one in enumerate(parameters) if one is next(layers.parameters()))
    for parameter in [*parameters[:first], *layers[:frozen_layers].parameters()]:
        parameter.requires_grad_(False)
