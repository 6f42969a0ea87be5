"""From the scores of a model to its best answers."""

from __future__ import annotations

import torch
from torch import Tensor

from coattn.explain.answers import Answer
from coattn.metrics.calibration import confidences, log_odds
from coattn.nn import GeneratorOutput, VQAOutput
from coattn.serialization.directory import ModelDirectory


def ranked_answers(
    output: VQAOutput | GeneratorOutput, row: int, directory: ModelDirectory, top_k: int
) -> list[Answer]:
    """The `top_k` best answers to one question of a batch; equal ones in the order of the vocabulary.

    Raises:
        ValueError: a score is not finite.
    """
    if isinstance(output, GeneratorOutput):
        found = output.scores[row] > -torch.inf
        logits, answers = log_odds(output.scores[row, found].float()), output.tokens[row, found]
    else:
        logits = output.logits[row].float()
        answers = torch.arange(len(logits), device=logits.device)
    if not len(logits) or not logits.isfinite().all():
        raise ValueError(
            f"{directory.folder}: the scores of the answers are not finite; its weights or the image's features hold "
            "NaN or infinite values"
        )
    best = logits.argsort(descending=True, stable=True)[:top_k]  # of the logits: confidences may round to equal
    shares = confidences(logits, directory.temperature, directory.activation)[best]
    return [Answer(*pair) for pair in zip(answer_texts(answers[best], directory), shares.tolist(), strict=True)]


def answer_texts(answers: Tensor, directory: ModelDirectory) -> list[str]:
    """Answers (K,), or of a model that writes (K, S) word ids, as people type them."""
    vocabulary = directory.answer_vocabulary
    return [vocabulary.as_typed(text) for text in vocabulary.texts(answers.tolist())]
