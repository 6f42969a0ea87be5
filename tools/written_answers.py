"""Compare written with chosen answers on DAQUAR, by kind of answer, after `tools/experiments daquar_generator`.

    .venv/bin/python tools/written_answers.py

A model that chooses can only give the answers of the training questions. Few lists are right to the last item, so the
overlap of items is shown too: the F1 of the two sets of items, averaged over the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coattn.datasets.records import Record
from coattn.datasets.results import read_results
from coattn.datasets.vqa_json import read_vqa
from coattn.metrics.bootstrap import Images, paired_test
from coattn.metrics.score import judge
from coattn.text.answer_words import AnswerWords, written_form
from coattn.text.answers import plain_key

DATA, RUNS = Path("data/daquar"), Path("runs/experiments/daquar_generator")
NAMES = ("daquar_generator", "daquar")  # writes, chooses
SEEDS = (0, 1, 2)


def main() -> None:
    """Print one table for exact match and one for the overlap of items."""
    train, test = (
        [record for split in splits for record in read_split(split)] for splits in (("train", "val"), ("test",))
    )
    exact, overlap = ({name: [] for name in NAMES} for _ in range(2))
    for name in NAMES:
        for seed in SEEDS:
            results = read_results(RUNS / name / f"seed_{seed}/predictions/test.json")
            exact[name].append(judge(results, test, "exact_match").worth)
            overlap[name].append(overlaps(results.answers, test))
    chosen, images = kinds(train, test), [record.image_id for record in test]
    for title, found in (("exact match, %", exact), ("F1 of items, %", overlap)):
        print(format_table(title, {name: np.array(values) for name, values in found.items()}, chosen, images))


def read_split(split: str) -> list[Record]:
    """The records of a split of DAQUAR."""
    return read_vqa(DATA / f"{split}_questions.json", DATA / f"{split}_annotations.json").records


def items(answer: str) -> frozenset[str]:
    """The items of a list, each in its normal form."""
    return frozenset(written_form(answer, "plain").split(", "))


def overlaps(answers: Mapping[int | str, str], records: Sequence[Record]) -> np.ndarray:
    """The F1 of the answered items for each question, (N,)."""
    found = []
    for record in records:
        answered, wanted = items(answers[record.question_id]), items(record.answer)
        found.append(2 * len(answered & wanted) / (len(answered) + len(wanted)))
    return np.array(found)


def kinds(train: Sequence[Record], test: Sequence[Record]) -> dict[str, np.ndarray]:
    """The test questions of each kind of true answer, as masks."""
    known = {plain_key(record.answer) for record in train}
    words = AnswerWords.build([record.answer for record in train], form="plain")
    written = [written_form(record.answer, "plain") for record in test]
    is_list = np.array(["," in text for text in written])
    is_long = np.array([" " in text for text in written]) & ~is_list
    unseen = np.array([plain_key(record.answer) not in known for record in test])
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


def format_table(
    title: str, worth: Mapping[str, np.ndarray], kinds: Mapping[str, np.ndarray], images: Sequence[int | str]
) -> str:
    """A row per kind: both means over the seeds, and their difference with its interval by image, in percent."""
    lines = [f"{title:<32}{'questions':>10}{'written':>9}{'chosen':>9}   difference, 95 % interval by image"]
    for kind, chosen in kinds.items():
        writes, chooses = (worth[name].mean(0)[chosen] for name in NAMES)
        found = paired_test(
            writes, chooses, Images([image for image, kept in zip(images, chosen, strict=True) if kept])
        )
        interval = f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        lines.append(
            f"{kind:<32}{chosen.sum():>10}{100 * writes.mean():>9.2f}{100 * chooses.mean():>9.2f}   {interval}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
