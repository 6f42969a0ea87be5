"""Written answers against chosen ones on DAQUAR: lists, answers of several words, and answers that training never had.

    python tools/daquar_generator.py     trains and tests what is missing, prints the table

The runs of configs/daquar.yaml, which chooses among the answers of the training questions, are those of
tools/daquar.py, and are made by the same protocol. An answer that no training question has cannot be chosen at all. As
few lists are right to the last thing, the overlap of the things is given too: the F1 of the sets of things, mean over
the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa
from coattn.text.answer_words import AnswerWords, written_form
from coattn.text.answers import answer_key
from daquar import DATA, bootstrap_by_image, fit_and_test, folder, score

NAMES = {"daquar_generator": "writes", "daquar": "chooses"}
SEEDS = (0, 1, 2)


def main() -> None:
    """Run what is missing, then print and write the table."""
    for name in NAMES:
        for seed in SEEDS:
            fit_and_test(name, seed)
    train, test = (
        [
            record
            for split in splits
            for record in read_vqa(DATA / f"{split}_questions.json", DATA / f"{split}_annotations.json").records
        ]
        for splits in (("train", "val"), ("test",))
    )
    lists = {answer_key(record.answer): things(record.answer) for record in train}
    scores = {
        "exact match": {name: np.array([score(name, seed, test) for seed in SEEDS]) for name in NAMES},
        "overlap of things": {name: np.array([overlaps(name, seed, test, lists) for seed in SEEDS]) for name in NAMES},
    }
    images, by_kind = [record.image_id for record in test], kinds(train, test)
    report = {measure: compare(values, by_kind, images) for measure, values in scores.items()}
    write_json("runs/daquar_generator/protocol.json", report, indent=1)
    for measure, rows in report.items():
        print(f"{f'{measure}, percent':<36}{'questions':>10}{'writes':>16}{'chooses':>16}   difference, 95 % interval")
        for kind, row in rows.items():
            cells = "".join(f"{row[way]['mean']:>8.2f} +- {row[way]['deviation']:.2f}" for way in NAMES.values())
            low, high = row["interval"]
            print(f"{kind:<36}{row['questions']:>10}{cells}   {row['difference']:+.2f} ({low:+.2f} to {high:+.2f})")


def things(answer: str) -> frozenset[str]:
    """The things of a list, each in its normal form."""
    return frozenset(written_form(answer, "plain").split(", "))


def overlaps(name: str, seed: int, records: Sequence[Record], lists: Mapping[str, frozenset[str]]) -> list[float]:
    """The F1 of the things that were answered, for each question; a chosen list is that of the training answer."""
    entries = read_json(folder(name, seed) / "predictions/test.json")
    given = {entry["question_id"]: entry["answer"] for entry in entries}
    found = []
    for record in records:
        answer, wanted = given[record.question_id], things(record.answer)
        answered = things(answer) if "," in answer else lists.get(answer_key(answer), things(answer))
        found.append(2 * len(answered & wanted) / (len(answered) + len(wanted)))
    return found


def kinds(train: Sequence[Record], test: Sequence[Record]) -> dict[str, np.ndarray]:
    """Which test questions are of which kind, by the answer that people gave."""
    chosen = {answer_key(record.answer) for record in train}
    words = AnswerWords.build([record.answer for record in train], form="plain")
    written = [written_form(record.answer, "plain") for record in test]
    is_list = np.array(["," in text for text in written])
    is_long = np.array([" " in text for text in written]) & ~is_list
    unseen = np.array([answer_key(record.answer) not in chosen for record in test])
    writable = np.array([words.encode(record.answer) is not None for record in test])
    return {
        "all": np.ones(len(test), bool),
        "one word": ~is_list & ~is_long,
        "one thing in several words": is_long,
        "a list": is_list,
        "not in training": unseen,
        "not in training, its words are": unseen & writable,
        "a list, not in training": unseen & is_list,
    }


def compare(
    correct: dict[str, np.ndarray], kinds: dict[str, np.ndarray], images: Sequence[int | str]
) -> dict[str, dict]:
    """Accuracy of both ways by kind, in percent, and their difference with its interval over questions, by image."""
    report = {}
    for kind, chosen in kinds.items():
        row: dict = {"questions": int(chosen.sum())}
        for name, way in NAMES.items():
            by_seed = 100 * correct[name][:, chosen].mean(1)
            row[way] = {"mean": by_seed.mean(), "deviation": by_seed.std(ddof=1), "by seed": by_seed.tolist()}
        values = 100 * (correct["daquar_generator"] - correct["daquar"]).mean(0)[chosen]
        row["difference"] = float(values.mean())
        row["interval"] = bootstrap_by_image(
            values, [image for image, kept in zip(images, chosen, strict=True) if kept]
        )
        report[kind] = row
    return report


if __name__ == "__main__":
    main()
