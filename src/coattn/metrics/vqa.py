"""The accuracy of one predicted answer: the official VQA accuracy, and exact match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coattn.text.answers import answer_key, clean_answer, normalize_answer


def vqa_accuracy(prediction: str, answers: Sequence[Mapping[str, Any] | str]) -> float:
    """The official VQA accuracy: each human answer is left out in turn, min(1, matches among the others / 3), averaged.

    With ten answers, 0, 1, 2, 3 or at least 4 matches give 0, 0.3, 0.6, 0.9, 1. Source: Antol et al. 2015, arXiv
    1505.00468, section "Testing", and the published evaluation (https://github.com/GT-Vision-Lab/VQA), whose quirks are
    kept because published scores contain them:

    - Answers and prediction are brought to their normal form (`coattn.text.answers.normalize_answer`) only if the human
      answers are not all the same text. If ten people typed "yes", the predictions "Yes" and "yes." score 0.
    - Left out with an answer are all entries *equal* to it (text, confidence and id), not only itself. Where entries
      repeat their id, equal answers drop out together: ten equal entries score 0.
    - A lone answer scores 0, since nothing is left to match; two score at most 1/3, three at most 2/3.

    Args:
        prediction: the predicted answer.
        answers: the entries of the annotation, each with its text under "answer"; or the texts alone, as if each came
            from a person of its own.

    Returns:
        The accuracy in [0, 1].

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("VQA accuracy needs at least one human answer, got none")
    texts = [clean_answer(answer if isinstance(answer, str) else answer["answer"]) for answer in answers]
    prediction = clean_answer(prediction)
    if len(set(texts)) > 1:
        texts = [normalize_answer(text) for text in texts]
        prediction = normalize_answer(prediction)
    # Entries are compared with their texts as they are now: two that differed in form only have become equal.
    entries = [
        {"answer": text, "answer_id": number} if isinstance(answer, str) else {**answer, "answer": text}
        for number, (answer, text) in enumerate(zip(answers, texts, strict=True))
    ]
    matching = [entry for entry in entries if entry["answer"] == prediction]
    accuracies = [min(1.0, (len(matching) - matching.count(left_out)) / 3) for left_out in entries]
    return sum(accuracies) / len(accuracies)


def exact_match(prediction: str, answer: str) -> float:
    """1 if the two answers are the same after normalisation of both (`coattn.text.answers.answer_key`), else 0.

    For data sets with one answer per question, to which the official VQA accuracy gives 0 whatever is predicted.
    """
    return float(answer_key(prediction) == answer_key(answer))
