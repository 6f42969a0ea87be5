"""Accuracies against several people's answers (VQA, TextVQA, own tables, A-OKVQA), and exact match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coattn.datasets.records import Record
from coattn.metrics.judgement import Judgement, Submission, as_annotated, extra
from coattn.text.answers import answer_key, clean_answer, consensus, normalize_answer, plain_key


def vqa_accuracy(prediction: str, answers: Sequence[Mapping[str, Any]] | Sequence[str]) -> float:
    """The official VQA accuracy: each human answer is left out in turn, min(1, matches among the others / 3), averaged.

    With ten answers, 0, 1, 2, 3 or at least 4 matches give 0, 0.3, 0.6, 0.9, 1. Source: Antol et al. 2015, arXiv
    1505.00468, section "Testing", and the published evaluation (https://github.com/GT-Vision-Lab/VQA), whose quirks are
    kept because published scores contain them:

    - Answers and prediction are normalized (`coattn.text.answers.normalize_answer`) only if the human
      answers are not all the same text. If ten people typed "yes", the predictions "Yes" and "yes." score 0.
    - Left out with an answer are all entries *equal* to it (text, confidence and id), not only itself. Where entries
      repeat their id, equal answers drop out together: ten equal entries score 0.
    - A lone answer scores 0, since nothing is left to match; with two the score is at most 1/3, with three 2/3.

    Args:
        prediction: the predicted answer.
        answers: the entries of the annotation, each with its text under "answer"; or the texts alone, as if each came
            from another person.

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


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy of TextVQA: that of VQA, but prediction and answers are always normalized.

    As `TextVQAAccuracyEvaluator` of MMF (https://github.com/facebookresearch/mmf, Singh et al. 2019, arXiv 1904.08920):
    the text in lower case, without ``,`` and ``?`` and with a space before ``'s``, gets the normal form of VQA.
    """
    return consensus([_textvqa_form(answer) for answer in answers].count(_textvqa_form(prediction)), len(answers))


def _textvqa_form(text: str) -> str:
    return normalize_answer(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy among several people's answers of a table: each left out in turn, min(1, matches / 3), averaged.

    Answers are compared as typed but for case, spaces and final stops (`coattn.text.answers.plain_key`). A lone answer
    is worth 1. This is how training scores the answers (`coattn.text.answers.soft_scores`).
    """
    return consensus([plain_key(answer) for answer in answers].count(plain_key(prediction)), len(answers))


def exact_match(prediction: str, answer: str) -> float:
    """1 if the two answers differ in case, spaces and final stops only (`coattn.text.answers.plain_key`), else 0.

    For data sets with one answer per question, where the official VQA accuracy is always 0.
    """
    return float(plain_key(prediction) == plain_key(answer))


def judge_vqa(submission: Submission) -> Judgement:
    """Official VQA accuracy: ten human answers, each left out in turn (VQA v1, v2, VQA-CP, OK-VQA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    entries = ((answer, record.answer_entries() if record.voters else record.answers) for answer, record in pairs)
    return Judgement(np.array([vqa_accuracy(*entry) for entry in entries]), notes=_few_answers(submission.records, 0.0))


def judge_textvqa(submission: Submission) -> Judgement:
    """VQA accuracy in which answers are always normalized, as MMF does (TextVQA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    worth = np.array([textvqa_accuracy(answer, record.answers) for answer, record in pairs])
    return Judgement(worth, notes=_few_answers(submission.records, 100.0))


def judge_soft(submission: Submission) -> Judgement:
    """VQA accuracy among answers as people typed them (own tables with several people's answers)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    worth = np.array([soft_accuracy(answer, record.answers) for answer, record in pairs])
    return Judgement(worth, notes=_few_answers(submission.records, 100.0))


def judge_exact_match(submission: Submission) -> Judgement:
    """Same as the one answer but for case, spaces and final stops (own tables, easy-VQA, COCO-QA)."""
    pairs = zip(submission.answers, submission.records, strict=True)
    several = sum(len(set(map(plain_key, record.answers))) > 1 for record in submission.records)
    note = f"{several} of {len(submission.records)} questions have different answers; the most frequent one counts"
    return Judgement(
        np.array([exact_match(answer, record.answer) for answer, record in pairs]), notes=[note] if several else []
    )


def _few_answers(records: Sequence[Record], lone: float) -> list[str]:
    """A note on the questions that so few people answered that a right answer cannot reach 100 %."""
    limits = {1: lone, 2: 100 / 3, 3: 200 / 3}
    counts = {number: sum(len(record.answers) == number for record in records) for number in limits}
    words = {1: "one answer", 2: "two answers", 3: "three answers"}
    parts = [
        f"{count} of {len(records)} questions have {words[number]}, where at most {limits[number]:.2f} % can be reached"
        for number, count in counts.items()
        if count and limits[number] < 100
    ]
    if not parts:
        return []
    advice = "; --metric exact_match compares with the most frequent answer alone"
    return ["VQA accuracy is low where few people answered: " + ", ".join(parts) + advice]


def judge_multiple_choice(submission: Submission) -> Judgement:
    """Official VQA accuracy of one of the 18 choices (VQA v1 multiple choice).

    As in the official code (`loadRes` of https://github.com/GT-Vision-Lab/VQA) an answer must be one of the choices,
    letter by letter, and is then judged as in the open-ended task. Deliberate difference: the normal form of a choice
    is taken for that choice.

    Raises:
        ValueError: a question has no choices, or an answer is not among them.
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
    which judges direct answers and choices. Choices are taken from "multiple_choice" of the results where they have it,
    else from the answers; an answer that is none of the choices is wrong. Questions marked `difficult_direct_answer`
    count with their choices alone. Unlike in the VQA accuracy, no annotator is left out and nothing is normalized.

    Raises:
        ValueError: `difficult_direct_answer` of a question is neither true nor false.
    """
    answers, notes = as_annotated(submission)
    direct = [
        float("nan") if extra(record, "difficult_direct_answer", bool) else min(1.0, record.answers.count(answer) / 3)
        for answer, record in zip(answers, submission.records, strict=True)
    ]
    asked = np.array([bool(record.choices and record.multiple_choice_answer) for record in submission.records])
    pairs = list(zip(submission.chosen or answers, submission.records, strict=True))
    right = np.array([float(answer == record.multiple_choice_answer) for answer, record in pairs])
    foreign = int((asked & np.array([answer not in record.choices for answer, record in pairs])).sum())
    if foreign:
        notes = [
            *notes,
            f"multiple choice: {foreign} of {len(pairs)} answers are none of the choices and count as wrong",
        ]
    return Judgement(np.array(direct), means={"multiple choice": np.where(asked, right, np.nan)}, notes=notes)


def _by_key(choices: Sequence[str]) -> dict[str, str]:
    return {answer_key(choice): choice for choice in reversed(choices)}
