"""Run the commands that a user would type on easy-VQA: prepare, extract, fit, predict, score, ask.

Complete steps are kept, so a second run continues where the first stopped. Remove `runs/easy_vqa*` to train again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa

COMMAND = Path(sys.executable).with_name("coattn")
DATA = Path("data/easy_vqa")
RUN, QUESTION_ONLY, PRIOR = Path("runs/easy_vqa"), Path("runs/easy_vqa_question_only"), Path("runs/easy_vqa_prior")
IMAGE, QUESTION = DATA / "images/test/0.png", "what color is the shape?"

# From https://github.com/vzhou842/easy-VQA; and the score of perfect sight with yes and no guessed as PRIOR does.
PUBLISHED, BLIND = 87.60, 87.12


class Column(NamedTuple):
    """One column of the table: the percentage of right answers in each known row."""

    title: str
    scores: dict[str, float]


def coattn(*arguments: str | Path, makes: Path | None = None) -> None:
    """Print a command and run it, unless the file that it writes last exists."""
    print(f"\n$ coattn {shlex.join(map(str, arguments))}", flush=True)
    if makes is not None and makes.exists():
        print(f"[{makes} exists]", flush=True)
        return
    started = time.perf_counter()
    status = subprocess.run([COMMAND, *map(str, arguments)]).returncode
    if status:
        sys.exit(f"tools/quickstart: the command failed (exit status {status}); run tools/quickstart again to continue")
    print(f"[{time.perf_counter() - started:.0f} s]", flush=True)


def train_and_score(run: Path) -> dict[str, float]:
    """Train, answer the test questions and score the answers. The configuration has the name of the run."""
    config, results = Path("configs", f"{run.name}.yaml"), run / "predictions/test.json"
    coattn("fit", "--config", config, "--resume", makes=run / "model/config.json")
    coattn("predict", "--config", config, "--ckpt_path", run / "model", "--output", results, makes=results)
    return score(results)


def score(results: Path) -> dict[str, float]:
    """Score a result file of the test questions: the percentage of right answers, over all and by question type."""
    questions, annotations = test_files()
    scores = results.with_name("test_scores.json")
    arguments = ["score", results, "--questions", questions, "--annotations", annotations, "--json", scores]
    coattn(*arguments, makes=scores)
    found = read_json(scores)
    return {"all": found["overall"], **found["by_question_type"]}


def score_prior(records: Sequence[Record], known: Sequence[Record]) -> dict[str, float]:
    """Score the most frequent training answer to the same question, else to its question type, without any model."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in known:
        answers[record.question][record.answer] += 1
        answers[record.question_type][record.answer] += 1
    guesses = [answers.get(record.question, answers[record.question_type]).most_common(1)[0][0] for record in records]
    results = PRIOR / "predictions/test.json"
    entries = zip(records, guesses, strict=True)
    write_json(results, [{"question_id": record.question_id, "answer": answer} for record, answer in entries])
    return score(results)


def test_files() -> tuple[Path, Path]:
    return DATA / "test_questions.json", DATA / "test_annotations.json"


def print_table(counts: Counter[str], columns: Sequence[Column]) -> None:
    rows = ["all", *(name for name, _ in counts.most_common() if name != "all")]
    width = max(map(len, [*rows, "test questions"]))
    print(f"\n{'test questions':<{width}}  number  " + "  ".join(column.title for column in columns))
    for row in rows:
        cells = [f"{column.scores[row]:.2f}" if row in column.scores else "-" for column in columns]
        cells = [cell.rjust(len(column.title)) for cell, column in zip(cells, columns, strict=True)]
        print(f"{row:<{width}}  {counts[row]:>6}  " + "  ".join(cells))


def main() -> None:
    coattn("prepare", "easy-vqa", DATA, makes=DATA / "report.json")
    coattn("extract", DATA / "images.json", DATA / "features")  # skips existing features
    ours, question_only = train_and_score(RUN), train_and_score(QUESTION_ONLY)
    test = read_vqa(*test_files()).records
    known = [
        read_vqa(DATA / f"{split}_questions.json", DATA / f"{split}_annotations.json") for split in ("train", "val")
    ]
    prior = score_prior(test, [record for split in known for record in split.records])

    counts = Counter(record.question_type for record in test)
    counts["all"] = len(test)
    columns = [
        Column("co-attention", ours),
        Column("question only", question_only),
        Column("prior only", prior),
        Column("published CNN+LSTM", {"all": PUBLISHED}),
    ]
    print_table(counts, columns)
    print(
        f"Percentage of right answers. Perfect sight with yes and no guessed blindly gets {BLIND:.2f} of all questions."
    )

    picture = RUN / "answer.png"
    coattn("ask", RUN / "model", IMAGE, QUESTION, "--map", picture)
    print(f"""
{picture} shows what the answer depends on. What to try next, after `source .venv/bin/activate`:

  coattn ask {RUN}/model {DATA}/images/test/4.png "what shape is present?" "does the image not contain a red shape?"
  coattn fit --config configs/easy_vqa.yaml --model.preset alternating --trainer.default_root_dir runs/alternating
  coattn train my.csv --images my_photos --out runs/mine""")


if __name__ == "__main__":
    main()
