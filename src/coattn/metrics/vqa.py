"""The official VQA accuracy, open-ended and of multiple choice, and exact match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coattn.metrics.judgement import Judgement, Submission, as_annotated, extra
from coattn.text.answers import answer_key, clean_answer, normalize_answer


def vqa_accuracy(prediction: str, answers: Sequence[Mapping[str, Any]] | Sequence[str]) -> float:
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
    if isinstance(answers[0], str):
        matches = texts.count(prediction)
        left_out, other = min(1.0, (matches - 1) / 3), min(1.0, matches / 3)
        accuracies = [left_out if text == prediction else other for text in texts]
    else:
        # Entries are compared with their texts as they are now: two that differed in form only have become equal.
        entries = [{**answer, "answer": text} for answer, text in zip(answers, texts, strict=True)]  # type: ignore[dict-item]
        matching = [entry for entry in entries if entry["answer"] == prediction]
        accuracies = [min(1.0, (len(matching) - matching.count(entry)) / 3) for entry in entries]
    return sum(accuracies) / len(accuracies)


def exact_match(prediction: str, answer: str) -> float:
    """1 if the two answers are the same after normalisation of both (`coattn.text.answers.answer_key`), else 0.

    For data sets with one answer per question, to which the official VQA accuracy gives 0 whatever is predicted.
    """
    return float(answer_key(prediction) == answer_key(answer))


def judge_vqa(submission: Submission) -> Judgement:
    """Official VQA accuracy: ten human answers, each left out in turn (VQA v1, v2, VQA-CP, OK-VQA, TextVQA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    entries = ((answer, record.answer_entries() if record.voters else record.answers) for answer, record in pairs)
    return Judgement(np.array([vqa_accuracy(*entry) for entry in entries]))


def judge_exact_match(submission: Submission) -> Judgement:
    """Same normal form as the one answer (own tables, easy-VQA, COCO-QA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    return Judgement(np.array([exact_match(answer, record.answer) for answer, record in pairs]))


def judge_multiple_choice(submission: Submission) -> Judgement:
    """Official VQA accuracy of one of the 18 choices (VQA v1 multiple choice).

    As in the official code (`loadRes` of https://github.com/GT-Vision-Lab/VQA) an answer must be one of the choices,
    letter by letter, and is then judged as in the open-ended task. Deliberate difference: the normal form of a choice
    is taken for that choice, since our models answer in it.

    Raises:
        ValueError: a question has no choices, or an answer is none of them.
    """
    chosen = []
    for answer, record in zip(submission.answers, submission.records, strict=True):
        if not record.choices:
            raise ValueError(
                f"question_id {record.question_id!r} has no choices; give questions with their multiple_choices"
            )
        choice = answer if answer in record.choices else _by_key(record.choices).get(answer_key(answer))
        if choice is None:
            raise ValueError(
                f"{submission.where}: question_id {record.question_id!r}: the answer {answer!r} is none of its "
                f"{len(record.choices)} choices ({', '.join(record.choices[:4])}, ...); give one of them"
            )
        chosen.append(choice)
    return judge_vqa(replace(submission, answers=chosen))


def judge_a_okvqa(submission: Submission) -> Judgement:
    """A-OKVQA, letter by letter: min(1, matches / 3) among the direct answers; choices are right or wrong.

    As `evaluation/eval_predictions.py` of https://github.com/allenai/aokvqa (Schwenk et al. 2022, arXiv 2206.01718),
    which judges direct answers and choices. Questions marked `difficult_direct_answer` count with their choices alone.
    (So since its last revision; before, it left them out of the choices.) Other than in the VQA accuracy no annotator
    is left out and nothing is normalised.

    Raises:
        ValueError: `difficult_direct_answer` of a question is neither true nor false.
    """
    direct, choices = [], []
    answers, notes = as_annotated(submission)
    for answer, record in zip(answers, submission.records, strict=True):
        difficult = extra(record, "difficult_direct_answer", bool)
        direct.append(float("nan") if difficult else min(1.0, record.answers.count(answer) / 3))
        chosen = record.multiple_choice_answer and answer in record.choices
        choices.append(float(answer == record.multiple_choice_answer) if chosen else float("nan"))
    return Judgement(np.array(direct), means={"multiple choice": np.array(choices)}, notes=notes)


def _by_key(choices: Sequence[str]) -> dict[str, str]:
    return {answer_key(choice): choice for choice in reversed(choices)}
