"""`tools/bench prepare`: `coattn prepare vqa-v2` and `coattn score` on files of VQA v2's size, made for it."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.context import Context, Row

PREPARE, SCORE = "VQA v2, train and val", "results on VQA v2's val"
_SIZES = {"train": (443_757, 82_783), "val": (214_354, 40_504)}
_NUM_QUESTION_TYPES = 65
_PROGRAM = """
import json, sys, time
from coattn.cli import main
from coattn._internal.process_memory import peak_of_process
start, work = time.perf_counter(), time.process_time()
status = main(sys.argv[1:])
taken = {"s": time.perf_counter() - start, "s of one core": time.process_time() - work}
found = taken | {"peak GB": peak_of_process()}
print(json.dumps({name: value and round(value, 2) for name, value in found.items()}))
sys.exit(status)
"""


def run(context: Context) -> list[Row]:
    """A row for each of the two commands. Each runs once, in a separate process."""
    if context.device == "cuda":
        print("prepare is not measured: nothing of it runs on a GPU")
        return []
    if importlib.util.find_spec("msgspec") is None:
        print("prepare is not measured: it needs msgspec")
        return []
    sizes = {
        split: tuple(max(1, round(context.scale.prepared * number)) for number in numbers)
        for split, numbers in _SIZES.items()
    }
    with TemporaryDirectory(dir=context.folder) as name:
        folder = Path(name)
        for split, (questions, images) in sizes.items():
            write_split(folder, split, questions, images)
        files = [f"--{kind}={folder}/out/val_{kind}.json" for kind in ("questions", "annotations")]
        scores = f"--json={folder}/scores.json"
        return [
            measure(PREPARE, sizes["train"][0] + sizes["val"][0], "prepare", "vqa-v2", str(folder), f"{folder}/out"),
            measure(SCORE, sizes["val"][0], "score", f"{folder}/val_results.json", *files, scores),
        ]


def measure(case: str, questions: int, *command: str) -> Row:
    """Run a command of coattn."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"coattn {' '.join(command)} failed ({done.returncode}):\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {"case": case, "implementation": "coattn", "questions/s": round(questions / found["s"])} | found


def write_split(folder: Path, split: str, num_questions: int, num_images: int) -> None:
    """The two official files of a split and a result file, in one pass and without holding them in memory.

    Words and answers are drawn from long-tailed distributions, about as many distinct answers as in VQA v2.
    """
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
            asked = f"what {draw.randrange(_NUM_QUESTION_TYPES)}"
            rest = {"question_type": asked, "answer_type": kind, "multiple_choice_answer": named}
            annotations.write(comma + json.dumps({**ids, **rest, "answers": answers}))
            guess = {"answer": draw.choice((named, other)), "confidence": draw.random()}
            results.write(comma + json.dumps({"question_id": ids["question_id"], **guess}))
        questions.write("]}")
        annotations.write("]}")
        results.write("]")
