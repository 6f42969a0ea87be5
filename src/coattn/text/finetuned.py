"""A text encoder of `transformers` inside a model, trained together with it.

Letters: B batch, T tokens, E width of the encoder, D width of the model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from coattn._internal.files import require
from coattn._internal.hub_cache import explained
from coattn.nn.question import Question
from coattn.text.pretrained import load_model
from coattn.text.pretrained_tokenizer import KIND, PretrainedTokenizer, encoder_config


class FinetunedQuestionEncoder(nn.Module):
    """Ids of the encoder's own tokenizer through the encoder, then through a question encoder on given embeddings.

    The encoder is built with random weights, for a saved model brings its own; `load_weights` or `pretrained` give it
    those it was published with. It is in `transformer`, without the pooler that some have for classification. In
    parameter groups it deserves a learning rate of its own, about 2e-5.

    Args:
        encoder: what reads the embeddings (B, T, E), any question encoder with `question_dim` E.
        config: architecture of the text encoder as JSON text, see `PretrainedTokenizer.config`: `model_type` and the
            settings that `transformers` knows for it. BERT, MiniLM, DistilBERT, RoBERTa, MPNet, ELECTRA, DeBERTa,
            ModernBERT, the encoder half of T5 and the like.
        frozen_layers: the embedding and so many of the lowest layers are not trained; 0 trains everything.
        dropout: of all dropout layers of the text encoder; None keeps its own.

    Raises:
        ValueError: the config is not that of a plain text encoder, `encoder` reads another width, or there are not so
            many layers.
        ModuleNotFoundError: `transformers` is not installed.
    """

    def __init__(
        self, encoder: nn.Module, *, config: str, frozen_layers: int = 0, dropout: float | None = None
    ) -> None:
        super().__init__()
        made = encoder_config(config, "text encoder")
        if getattr(encoder, "question_dim", None) != made.hidden_size:
            raise ValueError(
                f"the text encoder gives embeddings of width {made.hidden_size}, but the question encoder behind it "
                f"reads {getattr(encoder, 'question_dim', None)}"
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
        """The text encoder of a folder, with its weights; see the class and `load_weights`."""
        config = PretrainedTokenizer.load(folder).config
        module = cls(encoder, config=config, frozen_layers=frozen_layers, dropout=dropout)
        module.load_weights(folder)
        return module

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Take the weights of a text encoder: a folder with config.json and model.safetensors.

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
        # Some encoders count positions by the id of padding, and attention to nothing at all can be NaN.
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
    """Without what is never used (it would have no gradient), and with everything else in the state that is saved."""
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
    parameters = list(model.parameters())  # in the order of registration: what comes before the layers embeds
    first = next(number for number, one in enumerate(parameters) if one is next(layers.parameters()))
    for parameter in [*parameters[:first], *layers[:frozen_layers].parameters()]:
        parameter.requires_grad_(False)
