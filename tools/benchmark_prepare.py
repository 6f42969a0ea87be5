"""How long `coattn prepare vqa-v2` and `coattn score` take, and how much memory, on files of VQA v2's size made for it.

    python tools/benchmark_prepare.py                    # 443,757 and 214,354 questions, ten answers each, 0.6 GB
    python tools/benchmark_prepare.py --scale 0.1

Words and answers are drawn from long-tailed distributions, about as many distinct answers as in VQA v2. Aim: at most
180 seconds and 4 GB on two cores for both splits; scoring the 214,354 results of val, with confidences and intervals,
at most 30 seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"train": (443_757, 82_783), "val": (214_354, 40_504)}
NUM_QUESTION_TYPES = 65
PROGRAM = """
import resource, sys, time
from coattn.cli import main
start, status = time.perf_counter(), main(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_SELF)
print(f"seconds    {time.perf_counter() - start:.1f}, of which {usage.ru_utime + usage.ru_stime:.1f} of one core")
print(f"peak       {usage.ru_maxrss / 1e6:.2f} GB")
raise SystemExit(status)
"""


def write_split(folder: Path, split: str, num_questions: int, num_images: int) -> None:
    """The two official files of a split and a result file, in one pass and without holding them in memory."""
    draw = random.Random(split)
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": f"{split}2014"}
    start = json.dumps(head)[:-1]
    first_image = 1 if split == "train" else 200_000
    with (
        (folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json").open("w") as questions,
        (folder / f"v2_mscoco_{split}2014_annotations.json").open("w") as annotations,
        (folder / f"{split}_results.json").open("w") as results,
    ):
        questions.write(f'{start}, "questions": [')
        annotations.write(f'{start}, "annotations": [')
        results.write("[")
        for number in range(num_questions):
            image = first_image + number % num_images
            ids = {"image_id": image, "question_id": image * 1000 + number // num_images}
            words = " ".join(f"w{int(draw.paretovariate(0.6)) % 15_000}" for _ in range(draw.randint(3, 11)))
            named, other = (f"a{int(draw.paretovariate(0.4)) % 200_000}" for _ in range(2))
            people = [named if draw.random() < 0.7 else other for _ in range(10)]
            kind = draw.choice(("yes/no", "number", "other"))
            answers = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(people, 1)]
            comma = ", " if number else ""
            questions.write(comma + json.dumps({**ids, "question": f"{words}?"}))
            asked = f"what {draw.randrange(NUM_QUESTION_TYPES)}"
            rest = {"question_type": asked, "answer_type": kind, "multiple_choice_answer": named}
            annotations.write(comma + json.dumps({**ids, **rest, "answers": answers}))
            guess = {"answer": draw.choice((named, other)), "confidence": draw.random()}
            results.write(comma + json.dumps({"question_id": ids["question_id"], **guess}))
        questions.write("]}")
        annotations.write("]}")
        results.write("]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of VQA v2's size")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        for split, sizes in SIZES.items():
            write_split(folder, split, *(max(1, round(scale * size)) for size in sizes))
        print(f"made in    {time.perf_counter() - start:.1f} seconds", flush=True)
        files = [f"--{kind}={folder}/out/val_{kind}.json" for kind in ("questions", "annotations")]
        for command in (
            ["prepare", "vqa-v2", str(folder), f"{folder}/out"],
            ["score", f"{folder}/val_results.json", *files, f"--json={folder}/scores.json"],
        ):
            subprocess.run([sys.executable, "-c", PROGRAM, *command], check=True)


if __name__ == "__main__":
    main()
