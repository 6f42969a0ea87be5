"""Answers with their confidence, and what speaks against believing them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from coattn.metrics.calibration import confidences, log_odds
from coattn.nn import GeneratorOutput, VQAOutput
from coattn.serialization.directory import ModelDirectory

UNSURE = "I don't know"


class Answer(NamedTuple):
    """An answer as people type it, and the calibrated probability, in [0, 1], that it is right."""

    text: str
    confidence: float


class Answers(list[Answer]):
    """The best answers to one question, best first: a list, with the reasons to doubt it.

    Attributes:
        withheld: the model does not know; the list is then empty.
        reasons: a sentence for each doubt, whether or not the answers are withheld.
        unknown_words: the content words of the question that the model does not know, in order.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        *,
        withheld: bool = False,
        reasons: Iterable[str] = (),
        unknown_words: Iterable[str] = (),
    ) -> None:
        super().__init__(() if withheld else answers)
        self.withheld, self.reasons, self.unknown_words = withheld, tuple(reasons), tuple(unknown_words)

    def __repr__(self) -> str:
        shown = UNSURE if self.withheld else super().__repr__()
        return f"{shown} ({' '.join(self.reasons)})" if self.reasons else shown


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
