"""The report on a data set: sizes, answers, what guessing without the image scores, and leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any

from coattn.datasets.leaks import count_leaks, describe_leaks, find_exposures
from coattn.datasets.records import Record
from coattn.text.answers import FORMS, answer_form, soft_scores
from coattn.text.tokenizer import tokenize
from coattn.text.vocabulary import AnswerVocabulary

VOCABULARY_SIZES = (100, 1000, 3000)
_NONE: Mapping[str, str] = MappingProxyType({})
_LISTED = 1000  # answers with their counts, and answers that become one, in the report
_SHOWN = 8


def _question_type(record: Record) -> str:
    return record.question_type or " ".join(tokenize(record.question)[:2])


# The three guesses without an image, and the part of the question that each knows.
_PRIORS: dict[str, Callable[[Record], str]] = {
    "constant": lambda record: "",
    "per question type": _question_type,
    "per question text": lambda record: " ".join(tokenize(record.question)),
}


def build_report(
    splits: Mapping[str, Sequence[Record]],
    metric: str,
    has_features: Callable[[str], bool] | None = None,
    *,
    copies: Mapping[str, str] = _NONE,
    near_copies: Mapping[str, str] = _NONE,
) -> dict[str, Any]:
    """Describe a data set, as plain values for JSON.

    Answer vocabularies and guesses are made from the split "train", or from the first split if there is no train.
    `coverage` is the best score in percent that a model with the N most frequent answers can reach. `prior` is the
    score of guesses without the image: always the same answer, the most frequent answer to the type of question (its
    first two words if the data set names no type), and the most frequent answer to the very same question. `leaks`
    compares every other split with train (see `leaks.count_leaks`).

    Args:
        splits: split name to records.
        metric: the name of the metric that judges them.
        has_features: whether there are features of an image, by its id.
        copies: image id to the id that stands for all its byte-identical copies.
        near_copies: image id to the training image that it looks like.
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
    return {
        "splits": described,
        "shared_images": {pair: count for pair, count in shared.items() if count},
        "leaks": {
            name: count_leaks(records, find_exposures(splits["train"], records, copies=copies))
            for name, records in splits.items()
            if name != "train" and "train" in splits
        },
        "copies": _copies(splits, images, copies, near_copies),
    }


def _copies(
    splits: Mapping[str, Sequence[Record]],
    images: Mapping[str, set[str]],
    copies: Mapping[str, str],
    near_copies: Mapping[str, str],
) -> dict[str, Any]:
    """Counts of identical pictures, and of pictures and groups that are in several splits."""
    pictures: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    for name, used in images.items():
        for image_id in used & copies.keys():
            pictures[copies[image_id]].add(name)
    for name, records in splits.items():
        for record in records:
            if group := record.extra.get("group"):
                groups[str(group)].add(name)
    return {
        "images_with_identical_copies": sum(len(used & copies.keys()) for used in images.values()),
        "identical_pictures_in_several_splits": sum(len(names) > 1 for names in pictures.values()),
        "groups_in_several_splits": sum(len(names) > 1 for names in groups.values()),
        "near_copies_of_training_images": dict(near_copies),
    }


def _describe(records: Sequence[Record], metric: str) -> dict[str, Any]:
    longest = max(records, key=lambda record: len(tokenize(record.question)), default=None)
    counts = Counter(answer for record in records for answer in record.answers)
    key = FORMS[answer_form(metric)]
    typed_by_key: dict[str, list[str]] = defaultdict(list)
    for answer, _ in counts.most_common():
        typed_by_key[key(answer)].append(answer)
    merged = [typed for typed in typed_by_key.values() if len({text.casefold().strip(" .") for text in typed}) > 1]
    return {
        "questions": len(records),
        "images": len({str(record.image_id) for record in records}),
        "answers_as_typed": len(counts),
        "answers": len(typed_by_key),
        "answer_counts": dict(counts.most_common(_LISTED)),
        "answers_that_become_one": merged[:_LISTED],
        "answer_types": dict(Counter(record.answer_type for record in records).most_common()),
        "question_types": dict(Counter(record.question_type for record in records).most_common()),
        "longest_question": longest
        and {"words": len(tokenize(longest.question)), "question_id": longest.question_id, "text": longest.question},
        "repeated_questions": len(records) - len({(str(record.image_id), record.question) for record in records}),
    }


def _scores(
    source: Sequence[Record], records: Sequence[Record], metric: str, vocabulary: AnswerVocabulary
) -> dict[str, dict[str, float]]:
    """Coverage and prior of one split. The vocabulary is sorted by falling frequency: its first N are the N best."""
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
    """The most frequent answer, as a vocabulary number, to all questions that look the same."""
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
        lines += _split_lines(split)
    lines += ["", *(f"warning: {text}" for text in leak_lines(report))]
    lines += [f"note: {note}" for note in report.get("notes", [])]
    if skipped := report.get("skipped"):
        reasons = "; ".join(f"{reason} ({count})" for reason, count in report["skipped_reasons"].items())
        lines += [f"left out {len(skipped)}: {reasons}"] + [f"  {message}" for message in skipped[:10]]
        lines += [f"  ... and {len(skipped) - 10} more, all in report.json"] if len(skipped) > 10 else []
    return "\n".join(lines).rstrip()


def _split_lines(split: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, label in (("answer_types", "answer types"), ("question_types", "question types")):
        counts = {kind or "(none)": count for kind, count in split[key].items()}
        if list(counts) != ["(none)"]:
            lines.append(f"  {label:<18}{_counts(counts)}")
    if split["answers"]:
        lines.append(f"  answers           {split['answers']} distinct, {split['answers_as_typed']} as typed")
        lines.append(f"  most frequent     {_counts(split['answer_counts'])}")
    if merged := split["answers_that_become_one"]:
        examples = "; ".join(" = ".join(map(repr, typed[:4])) for typed in merged[:_SHOWN])
        lines.append(f"  same answer       different spellings count as one answer in {len(merged)} cases: {examples}")
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
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{kind or '(empty)'} {count}" for kind, count in list(counts.items())[:_SHOWN])
    return shown + (f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def leak_lines(report: Mapping[str, Any]) -> list[str]:
    """One sentence for each leak between the splits of a report; an empty list if nothing leaks."""
    lines = [line for name, counts in report["leaks"].items() for line in describe_leaks(counts, evaluated=name)]
    for pair, count in report["shared_images"].items():
        if "train" not in pair.split(", "):
            lines.append(f"{count} images occur in two splits ({pair})")
    copies = report["copies"]
    if count := copies["images_with_identical_copies"]:
        several = copies["identical_pictures_in_several_splits"]
        where = f"{several} of these pictures occur in several splits" if several else "none occurs in several splits"
        lines.append(f"{count} images have byte-identical copies under other names; {where}")
    if count := copies["groups_in_several_splits"]:
        lines.append(f"{count} groups occur in several splits")
    if count := len(copies["near_copies_of_training_images"]):
        image, other = next(iter(copies["near_copies_of_training_images"].items()))
        lines.append(f"{count} images look the same as a training image, for example {image!r} and {other!r}")
    return lines
