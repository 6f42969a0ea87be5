"""From the scores of a model to its best answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coattn.explain.answers import Answer
from coattn.metrics.calibration import confidences, log_odds
from coattn.nn import GeneratorOutput, VQAOutput
from coattn.nn.decoder import PAD
from coattn.serialization.directory import ModelDirectory


def ranked_answers(output: VQAOutput | GeneratorOutput, directory: ModelDirectory, top_k: int) -> list[list[Answer]]:
    """The `top_k` best answers to each question of a batch; equal ones in the order of the vocabulary.

    Raises:
        ValueError: a score is not finite.
    """
    if isinstance(output, GeneratorOutput):
        logits = log_odds(output.scores.float())  # (B, A), -inf for missing answers
        real = output.scores != -torch.inf
    else:
        logits = output.logits.float()
        real = torch.ones_like(logits, dtype=torch.bool)
    if not (logits.isfinite() == real).all() or not real.any(1).all():
        raise ValueError(
            f"{directory.folder}: the scores of the answers are not finite; its weights or the image's features hold "
            "NaN or infinite values"
        )
    best = logits.argsort(descending=True, stable=True)[:, :top_k]  # of the logits: confidences may round to equal
    shares = confidences(logits, directory.temperature, directory.activation).gather(1, best)  # (B, K)
    numbers = best.tolist()
    if isinstance(output, GeneratorOutput):
        numbers = output.tokens.take_along_dim(best[..., None], 1).tolist()  # (B, K, S)
    return [
        [Answer(*pair) for pair in zip(answer_texts(row[:count], directory), values, strict=False)]
        for row, values, count in zip(numbers, shares.tolist(), real.sum(1).tolist(), strict=True)
    ]


def best_answer(output: VQAOutput | GeneratorOutput, directory: ModelDirectory) -> tuple[Tensor, str]:
    """The best answer to the first question of a batch: its number (1,) or word ids (S,), and its text."""
    if isinstance(output, GeneratorOutput):
        answer = output.tokens[0, 0]
        answer = answer[answer != PAD]
        (text,) = answer_texts([answer.tolist()], directory)
    else:
        answer = output.logits[0].float().argmax()[None]
        (text,) = answer_texts(answer.tolist(), directory)
    return answer, text


def answer_texts(answers: Sequence[Any], directory: ModelDirectory) -> list[str]:
    """Answers by number, or of a model that writes by word ids, as people type them."""
    vocabulary = directory.answer_vocabulary
    return [vocabulary.as_typed(text) for text in vocabulary.texts(answers)]
