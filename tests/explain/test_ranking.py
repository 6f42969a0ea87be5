"""The best answers of a batch, from logits and from written answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coattn.explain.ranking import ranked_answers
from coattn.nn import GeneratorOutput, VQAOutput
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary


def directory(vocabulary: AnswerVocabulary | AnswerWords) -> Any:
    return SimpleNamespace(folder="model", answer_vocabulary=vocabulary, temperature=1.0, activation="sigmoid")


def test_equal_logits_keep_the_order_of_the_vocabulary() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0], [1.0, 1.0, -1.0]])
    first, second = ranked_answers(VQAOutput(logits, {}), directory(AnswerVocabulary(["a", "b", "c"])), 2)
    assert [answer.text for answer in first] == ["b", "a"]
    assert [answer.text for answer in second] == ["a", "b"]
    assert first[0].confidence == pytest.approx(torch.tensor(2.0).sigmoid().item())


def test_rows_of_a_batch_may_have_different_numbers_of_written_answers() -> None:
    words = AnswerWords.build(["red", "blue"])
    (red, _), (blue, _) = (words.encode(text) or [] for text in ("red", "blue"))
    tokens = torch.tensor([[[red], [blue]], [[blue], [0]]])
    scores = torch.tensor([[0.6, 0.3], [0.5, 0.0]]).log()
    output = GeneratorOutput(tokens, scores, scores, {})
    first, second = ranked_answers(output, directory(words), 5)
    assert [answer.text for answer in first] == ["red", "blue"]
    assert [answer.text for answer in second] == ["blue"]
    assert [answer.confidence for answer in first] == pytest.approx([0.6, 0.3])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, value]])
    with pytest.raises(ValueError, match="model: the scores of the answers are not finite"):
        ranked_answers(VQAOutput(logits, {}), directory(AnswerVocabulary(["a", "b"])), 1)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_questions_without_a_finite_written_answer_are_refused(value: float) -> None:
    scores = torch.full((1, 2), value)
    output = GeneratorOutput(torch.zeros(1, 2, 1, dtype=torch.long), scores, scores, {})
    with pytest.raises(ValueError, match="model: the scores of the answers are not finite"):
        ranked_answers(output, directory(AnswerWords.build(["red"])), 1)
