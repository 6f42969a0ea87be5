"""The DAQUAR protocol: co-attention and question-only, five fixed seeds each, tested once, with the paired difference.

    python tools/daquar.py               fits, tests, prints the table; what is complete is kept
    python tools/daquar.py --jobs 2      two runs at a time, for example one per core

Everything that could be chosen was chosen on images held out of the official training split (see configs/daquar.yaml);
this trains on all training images for a fixed number of epochs and takes the last weights. Each run is two commands:

    coattn fit --config configs/NAME.yaml --seed_everything SEED --trainer.default_root_dir runs/NAME/seed_SEED
    coattn test --config configs/NAME.yaml --trainer.default_root_dir runs/NAME/seed_SEED --ckpt_path .../model
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa
from coattn.metrics.vqa import exact_match

NAMES = ("daquar", "daquar_question_only")
SEEDS = (0, 1, 2, 3, 4)
DATA = Path("data/daquar")
_T_95 = 2.776  # Student's t, 97.5 %, for the 4 degrees of freedom of five seeds


def main() -> None:
    """Run what is missing, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (%(default)s)")
    arguments = parser.parse_args()
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        list(pool.map(lambda run: fit_and_test(*run), [(name, seed) for seed in SEEDS for name in NAMES]))
    finally:
        pool.shutdown(cancel_futures=True)
    records = read_vqa(DATA / "test_questions.json", DATA / "test_annotations.json").records
    correct = {name: np.array([score(name, seed, records) for seed in SEEDS]) for name in NAMES}
    seconds = {name: [read_json(folder(name, seed) / "seconds.json") for seed in SEEDS] for name in NAMES}
    report = {"test questions": len(records), "seeds": list(SEEDS), "seconds of fit": seconds}
    report |= compare(correct[NAMES[0]], correct[NAMES[1]], records)
    write_json("runs/daquar/protocol.json", report, indent=1)
    print_report(report)


def folder(name: str, seed: int) -> Path:
    return Path("runs", name, f"seed_{seed}")


def fit_and_test(name: str, seed: int) -> None:
    """One run; a test that was made is never made again."""
    run, config = folder(name, seed), f"configs/{name}.yaml"
    root = ["--trainer.default_root_dir", run]
    if not (run / "model/config.json").exists():
        started = time.perf_counter()
        coattn("fit", "--config", config, "--seed_everything", seed, *root, "--resume")
        write_json(run / "seconds.json", round(time.perf_counter() - started))
    if not (run / "predictions/test.json").exists():
        coattn("test", "--config", config, *root, "--ckpt_path", run / "model")


def coattn(*arguments: object) -> None:
    """Run a command, its output beside the run's files; stop everything if it fails."""
    command = [str(Path(sys.executable).with_name("coattn")), *map(str, arguments)]
    print(" ".join(["coattn", *command[1:]]), flush=True)
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{result.stderr[-2000:]}\ntools/daquar.py: that failed; run it again to go on from there")


def score(name: str, seed: int, records: Sequence[Record]) -> list[float]:
    """1 or 0 for each test question."""
    answers = {
        entry["question_id"]: entry["answer"] for entry in read_json(folder(name, seed) / "predictions/test.json")
    }
    return [exact_match(answers[record.question_id], record.answer) for record in records]


def compare(ours: np.ndarray, blind: np.ndarray, records: Sequence[Record]) -> dict[str, object]:
    """Accuracies, overall and by kind, and the paired difference, in percent; both arrays are (seeds, questions).

    The interval over questions draws the test images anew 10,000 times, all questions of an image together, with each
    question's mean over the seeds; the interval over seeds is Student's t of the seeds' differences.
    """
    kinds = {"all": np.ones(len(records), bool)}
    for name in ("answer_type", "question_type"):
        for kind in sorted({getattr(record, name) for record in records}):
            kinds[f"{name}: {kind}"] = np.array([getattr(record, name) == kind for record in records])
    table = {
        kind: {"questions": int(chosen.sum()), **{name: _spread(100 * correct[:, chosen].mean(1)) for name, correct in
               (("co-attention", ours), ("question only", blind))}}
        for kind, chosen in kinds.items()
    }  # fmt: skip
    by_seed = 100 * (ours - blind).mean(1)
    half = _T_95 * by_seed.std(ddof=1) / math.sqrt(len(by_seed))
    low, high = bootstrap_by_image(100 * (ours - blind).mean(0), [record.image_id for record in records])
    difference = {
        "mean": round(float(by_seed.mean()), 2),
        "by seed": by_seed.round(2).tolist(),
        "95 % interval over questions, by image": [round(low, 2), round(high, 2)],
        "95 % interval over seeds": [round(float(by_seed.mean() - half), 2), round(float(by_seed.mean() + half), 2)],
    }
    return {"accuracy": table, "difference": difference}


def bootstrap_by_image(
    values: np.ndarray, images: Sequence[int | str], *, num_draws: int = 10_000
) -> tuple[float, float]:
    """95 % interval of the mean of `values` (N,), when images, with all their values, are drawn with replacement."""
    _, groups = np.unique([str(image) for image in images], return_inverse=True)
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    draws = np.random.default_rng(0).integers(len(sums), size=(num_draws, len(sums)))
    low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])
    return float(low), float(high)


def _spread(scores: np.ndarray) -> dict[str, object]:
    return {
        "mean": round(float(scores.mean()), 2),
        "standard deviation": round(float(scores.std(ddof=1)), 2),
        "by seed": scores.round(2).tolist(),
    }


def print_report(report: dict) -> None:
    """The table for people."""
    columns = ("co-attention", "question only")
    print(f"\n{'exact match, percent':<24}{'questions':>10}" + "".join(f"{name:>18}" for name in columns))
    for kind, row in report["accuracy"].items():
        cells = [f"{row[name]['mean']:.2f} +- {row[name]['standard deviation']:.2f}" for name in columns]
        print(f"{kind:<24}{row['questions']:>10}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"\nmean and standard deviation over the seeds {report['seeds']}")
    for name in columns:
        print(f"{name}, by seed: {report['accuracy']['all'][name]['by seed']}")
    for name, value in report["difference"].items():
        print(f"difference, {name}: {value}")
    print(f"seconds of fit: {report['seconds of fit']}")


if __name__ == "__main__":
    main()
