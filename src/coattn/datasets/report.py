"""What is in a data set: counts, coverage of answer vocabularies, what guessing without the image scores, leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from coattn.datasets.records import Record
from coattn.text.answers import FORMS, answer_form, soft_scores
from coattn.text.tokenizer import tokenize
from coattn.text.vocabulary import AnswerVocabulary

VOCABULARY_SIZES = (100, 1000, 3000)


def _question_type(record: Record) -> str:
    return record.question_type or " ".join(tokenize(record.question)[:2])


# What the three guesses without an image may look at.
_PRIORS: dict[str, Callable[[Record], str]] = {
    "constant": lambda record: "",
    "per question type": _question_type,
    "per question text": lambda record: " ".join(tokenize(record.question)),
}


def build_report(
    splits: Mapping[str, Sequence[Record]], metric: str, has_features: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """Describe a data set, as plain values for JSON.

    Answer vocabularies and guesses are made from the split "train", or from the first one where there is none.
    `coverage` is the best score in percent that a model with the N most frequent answers can reach. `prior` is what
    guesses score that see no image: always the same answer, the most frequent answer to the type of question (its first
    two words where the data set names no type), and the most frequent answer to the very same question.
    """
    source = splits.get("train") or next((records for records in splits.values() if records), [])
    known = [record.answer for record in source if record.answers]
    vocabulary = AnswerVocabulary.build([[answer] for answer in known], form=answer_form(metric)) if known else None
    described = {}
    for name, records in splits.items():
        described[name] = _describe(records, metric)
        if vocabulary is not None and records and records[0].answers:
            described[name] |= _scores(source, records, metric, vocabulary)
    images = {name: {str(record.image_id) for record in records} for name, records in splits.items()}
    shared = {f"{a}, {b}": len(images[a] & images[b]) for a, b in combinations(images, 2)}
    if has_features is not None:
        for name, used in images.items():
            absent = sorted(image_id for image_id in used if not has_features(image_id))
            described[name]["images_without_features"] = {"count": len(absent), "first": absent[:5]}
    return {"splits": described, "shared_images": {pair: count for pair, count in shared.items() if count}}


def _describe(records: Sequence[Record], metric: str) -> dict[str, Any]:
    typed = {answer for record in records for answer in record.answers}
    longest = max(records, key=lambda record: len(tokenize(record.question)), default=None)
    return {
        "questions": len(records),
        "images": len({str(record.image_id) for record in records}),
        "answers_as_typed": len(typed),
        "answers": len(set(map(FORMS[answer_form(metric)], typed))),
        "answer_types": dict(Counter(record.answer_type for record in records).most_common()),
        "question_types": dict(Counter(record.question_type for record in records).most_common()),
        "longest_question": longest
        and {"words": len(tokenize(longest.question)), "question_id": longest.question_id, "text": longest.question},
        "repeated_questions": len(records) - len({(str(record.image_id), record.question) for record in records}),
    }


def _scores(
    source: Sequence[Record], records: Sequence[Record], metric: str, vocabulary: AnswerVocabulary
) -> dict[str, dict[str, float]]:
    """Coverage and prior of one split. The vocabulary goes by falling frequency: its first N are the N best."""
    worth = [_worth(record, metric, vocabulary) for record in records]
    percent = 100 / len(records)
    coverage = {}
    for size in [size for size in VOCABULARY_SIZES if size < len(vocabulary)] + [len(vocabulary)]:
        reached = (max((score for number, score in scores.items() if number < size), default=0) for scores in worth)
        coverage[str(size)] = round(percent * sum(reached), 2)
    prior = {}
    for name, look in _PRIORS.items():
        guesses = _guesses(source, vocabulary, look)
        hits = (scores.get(guesses.get(look(record), 0), 0) for record, scores in zip(records, worth, strict=True))
        prior[name] = round(percent * sum(hits), 2)
    return {"coverage": coverage, "prior": prior}


def _worth(record: Record, metric: str, vocabulary: AnswerVocabulary) -> dict[int, float]:
    answers = (record.answer,) if metric == "exact_match" else record.answers
    return dict(zip(*soft_scores(answers, vocabulary), strict=True))


def _guesses(source: Sequence[Record], vocabulary: AnswerVocabulary, look: Callable[[Record], str]) -> dict[str, int]:
    """The most frequent answer, as a vocabulary number, to everything that looks the same."""
    counts: dict[str, Counter[int]] = {}
    for record in source:
        number = vocabulary.index.get(vocabulary.key(record.answer))
        if number is not None:
            counts.setdefault(look(record), Counter())[number] += 1
    return {seen: counter.most_common(1)[0][0] for seen, counter in counts.items()}


def format_report(report: Mapping[str, Any]) -> str:
    """The report as a short text for people."""
    lines = [f"{report['prepared']} ({report['metric']})"]
    for name, split in report["splits"].items():
        lines += ["", f"{name}: {split['questions']} questions on {split['images']} images"]
        for key, label in (("answer_types", "answer types"), ("question_types", "question types")):
            counts = {kind or "(none)": count for kind, count in split[key].items()}
            if list(counts) != ["(none)"]:
                shown = ", ".join(f"{kind} {count}" for kind, count in list(counts.items())[:8])
                more = f", and {len(counts) - 8} more" if len(counts) > 8 else ""
                lines.append(f"  {label:<18}{shown}{more}")
        if split["answers"]:
            lines.append(f"  answers           {split['answers']} distinct, {split['answers_as_typed']} as typed")
        if longest := split["longest_question"]:
            lines.append(f"  longest question  {longest['words']} words (question_id {longest['question_id']!r})")
        if split["repeated_questions"]:
            lines.append(f"  repeated          {split['repeated_questions']} questions occur again on the same image")
        if absent := split.get("images_without_features", {}).get("count"):
            first = ", ".join(split["images_without_features"]["first"])
            lines.append(f"  warning: {absent} of {split['images']} images have no features, for example {first}")
        for key, label in (
            ("coverage", "best score by size of the answer vocabulary, %"),
            ("prior", "score without seeing the image, %"),
        ):
            if split.get(key):
                lines.append(f"  {label}: " + ", ".join(f"{what} {score:.2f}" for what, score in split[key].items()))
    lines.append("")
    for pair, count in report["shared_images"].items():
        lines.append(f"warning: {count} images occur in two splits ({pair}): scores there say less than they seem to")
    lines += [f"note: {note}" for note in report["notes"]]
    if skipped := report["skipped"]:
        lines += [f"skipped {len(skipped)}:"] + [f"  {message}" for message in skipped[:10]]
        lines += [f"  ... and {len(skipped) - 10} more, all in report.json"] if len(skipped) > 10 else []
    return "\n".join(lines).rstrip()
