"""The tokenizer and the ONNX graph of a pretrained text encoder.

Letters: B batch, T tokens, E width of the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coattn._internal.files import require
from coattn.runtime.folder import TEXT_ENCODER, TOKENIZER
from coattn.runtime.text import QuestionTokenizer
from coattn.text.encoders import TextEncoder
from coattn.text.pretrained_tokenizer import PretrainedTokenizer

from .onnx import write_graph

_QUESTIONS = (
    "what is it?",
    "Isn't the “blue” café's door open?",
    "¿qué es? 何が見えますか? что это?",
    "how many (3-legged) chairs, tables and lamps are there?",
    "why " * 300,
)


class TextEncoderGraph(nn.Module):
    """A frozen text encoder: token ids (B, T) and their mask to the last hidden states (B, T, E)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, question: Tensor, question_mask: Tensor) -> Tensor:
        """The hidden states (B, T, E); those of padding have no meaning."""
        output = self.model(input_ids=question, attention_mask=question_mask.long(), return_dict=True)
        return output.last_hidden_state


def write_tokenizer(tokenizer: PretrainedTokenizer, max_tokens: int | None, folder: Path) -> None:
    """Write the tokenizer of a text encoder, which cuts questions to `max_tokens`, in the format of `tokenizers`.

    Raises:
        ValueError: it is written in Python alone, or the written one returns other ids.
    """
    made: Any = tokenizer._tokenizer
    if not hasattr(made, "backend_tokenizer"):
        raise ValueError(f"{tokenizer.source}: its tokenizer exists only in Python, and cannot be exported")
    copied = require("tokenizers", "runtime-text").Tokenizer.from_str(made.backend_tokenizer.to_str())
    copied.no_padding()
    copied.no_truncation()
    if max_tokens is not None:
        copied.enable_truncation(max_tokens, direction=made.truncation_side)
    copied.save(str(folder / TOKENIZER), pretty=False)
    written = QuestionTokenizer(folder / TOKENIZER)
    for question in _QUESTIONS:
        if written.encode(question) != tokenizer.encode(question, max_tokens=max_tokens):
            raise ValueError(f"{tokenizer.source}: the exported tokenizer returns other ids for {question[:40]!r}")


@torch.no_grad()
def write_text_encoder(encoder: TextEncoder, folder: Path) -> float:
    """Write the graph of a frozen text encoder, and return how far its rows are from the encoder's."""
    graph = TextEncoderGraph(encoder._model)
    axes = {name: {0: "batch", 1: "tokens"} for name in ("question", "question_mask")}
    write_graph(graph, _batch(encoder, 3, 5), axes, ["rows"], folder / TEXT_ENCODER)
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession((folder / TEXT_ENCODER).read_bytes(), providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch, tokens in ((1, 3), (3, 5), (4, 11)):
        inputs = _batch(encoder, batch, tokens)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
        difference = np.abs(found - graph(**inputs).numpy())[inputs["question_mask"].numpy()]
        largest = max(largest, float(difference.max()))
    return largest


def _batch(encoder: TextEncoder, batch: int, tokens: int) -> dict[str, Tensor]:
    """Random ids (B, T), of which every question but the first is padded."""
    random = torch.Generator().manual_seed(tokens)
    lengths = torch.randint(1, tokens + 1, (batch, 1), generator=random)
    lengths[0] = tokens
    mask = torch.arange(tokens) < lengths
    return {
        "question": torch.randint(0, len(encoder.tokenizer), (batch, tokens), generator=random) * mask,
        "question_mask": mask,
    }
