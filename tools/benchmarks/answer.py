"""`tools/bench answer`: a question on the way to its answer, beside an earlier build and other packages.

Rows are compared with the first row of their case; "of the first" is a share of its time or memory, round by round.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from benchmarks import served
from benchmarks.asked import NUM_REGIONS, QUESTION, REGION_DIM
from benchmarks.context import Context, Row
from benchmarks.timing import alternate, ratio, summary
from benchmarks.turns import asker_command, cost, environment, in_turns

ROOT = Path(__file__).resolve().parents[2]
EASY_VQA, EASY_DATA = ROOT / "runs" / "easy_vqa" / "model", ROOT / "data" / "easy_vqa"
SORT_OF_CLEVR, CLEVR_DATA = ROOT / "runs" / "compare" / "sort_of_clevr_mcan" / "model", ROOT / "data" / "sort_of_clevr"

ONE = ("one question, 36 regions, 1 thread", "one question, 36 regions, 2 threads")
EASY = "one question, easy-VQA's model, 1 thread"
BUSY = "one question, another process keeps a core busy"
CHANGED_EASY, CHANGED_CLEVR = "answers changed by int8, easy-VQA", "answers changed by int8, Sort-of-CLEVR"
START, MEMORY, INSTALLED = "start of a command", "memory of a command", "installed size"
SERVER, SERVER_EXPORTED = "server, 16 clients, images known", "server, exported model, 16 clients, images known"
PHOTO = "photo and question, one thread"
EXPORTED, INT8 = "coattn, exported", "coattn, int8"
OURS = "coattn, MobileNetV2 and MCAN-small"
VILT, BLIP = "ViLT-B/32 of transformers", "BLIP-base of transformers"
FIRST = "of the first"


def run(context: Context) -> list[Row]:
    """Every row whose packages and models are there."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        print("answers are not measured: coattn[export] is not installed")
        return []
    folders = export_mcan(context)
    rows = [*questions(context, folders), *busy_core(context, folders)]
    if EASY_VQA.exists():
        easy = {"model": EASY_VQA, "export": export(EASY_VQA, context.folder / "easy")}
        rows += [*easy_question(context, easy), *starts(context, easy), *installed()]
        rows += [*server(context, SERVER, easy["model"]), *server(context, SERVER_EXPORTED, easy["export"])]
    else:
        print(f"easy-VQA's rows are not measured: there is no {EASY_VQA}; run tools/quickstart")
    return [*rows, *changed_answers(context), *photos(context)]


def _today(context: Context) -> str:
    """The name of the build that is compared with."""
    return "coattn, torch" if context.against is None else f"coattn of {context.against.name}, torch"


def compared(case: str, column: str, found: Mapping[str, Sequence[float]], *, scale: float = 1.0) -> list[Row]:
    """The rows of a case from the measurements of each implementation; the first is what all are compared with."""
    first = next(iter(found.values()))
    return [
        {
            "case": case,
            "implementation": name,
            column: summary([scale * value for value in values]),
            FIRST: ratio(values, first),
        }
        for name, values in found.items()
    ]


def export(folder: Path, out: Path, *options: str) -> Path:
    """Export a model directory with `coattn export`, unless an earlier run in the same `--folder` has done so."""
    if not out.exists():
        command = [sys.executable, "-m", "coattn", "export", str(folder), str(out), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    return out


def export_mcan(context: Context) -> dict[str, Path]:
    """A random MCAN-small of the build that is compared with, and its exports."""
    folder = context.folder / "mcan"
    sizes = ("num_layers=1", "dim=64", "ffn_dim=128") if context.quick else ()
    if not folder.exists():
        subprocess.run(asker_command("make", folder, *sizes), check=True, env=environment(context.against))
    exported = export(folder, context.folder / "mcan_exported")
    return {"model": folder, "export": exported, "int8": export(folder, context.folder / "mcan_int8", "--int8")}


def questions(context: Context, folders: Mapping[str, Path]) -> list[Row]:
    """Milliseconds of `Predictor.ask` for one question, regions known, with one and two threads."""
    rows = []
    for threads, case in enumerate(ONE, 1):
        given = (threads, QUESTION, NUM_REGIONS, REGION_DIM)
        runs = {
            _today(context): (asker_command("model", folders["model"], *given), environment(context.against)),
            EXPORTED: (asker_command("export", folders["export"], *given), environment()),
            INT8: (asker_command("export", folders["int8"], *given), environment()),
        }
        rows += compared(case, "ms", in_turns(runs, context.scale.asked), scale=1000)
    return rows


def busy_core(context: Context, folders: Mapping[str, Path]) -> list[Row]:
    """The exported model with one and two threads while another process never waits."""
    runs = {
        f"{EXPORTED}, threads: {threads}": (
            asker_command("export", folders["export"], threads, QUESTION, NUM_REGIONS, REGION_DIM),
            environment(),
        )
        for threads in (1, 2)
    }
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            return compared(BUSY, "ms", in_turns(runs, context.scale.asked), scale=1000)
        finally:
            busy.kill()


def easy_question(context: Context, folders: Mapping[str, Path]) -> list[Row]:
    """Milliseconds of one question to easy-VQA's model, one thread.

    The build that is compared with asks a random model of the same sizes: it may not read the format of today.
    """
    model, question = context.folder / "easy_random", "what is the color of the triangle?"
    if not model.exists():
        subprocess.run(asker_command("make_easy", model), check=True, env=environment(context.against))
    photo = next((EASY_DATA / "images").rglob("*.png"))
    runs = {
        _today(context): (asker_command("model", model, 1, question, 16, 56), environment(context.against)),
        EXPORTED: (asker_command("image", folders["export"], 1, question, photo), environment()),
    }
    return compared(EASY, "ms", in_turns(runs, context.scale.asked, repeats=20), scale=1000)


def starts(context: Context, folders: Mapping[str, Path]) -> list[Row]:
    """Seconds and megabytes of commands from a cold start, beside `import torch`."""
    photo = next((EASY_DATA / "images").rglob("*.png"))
    question, picture = "what is the color of the triangle?", context.folder / "map.png"
    python = [sys.executable, "-m"]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "coattn.runtime ask": [*python, "coattn.runtime", "ask", folders["export"], photo, question],
        "coattn ask": [*python, "coattn", "ask", folders["model"], photo, question],
        "coattn ask --map": [*python, "coattn", "ask", folders["model"], photo, question, "--map", picture],
        "coattn fit --help": [*python, "coattn", "fit", "--help"],
        "coattn inspect": [*python, "coattn", "inspect", EASY_DATA / "features"],
    }
    runs = {name: partial(cost, list(map(str, command)), environment()) for name, command in commands.items()}
    found = alternate(runs, 1 if context.quick else 7)
    seconds = {name: [value for value, _ in values] for name, values in found.items()}
    megabytes = {name: [value for _, value in values] for name, values in found.items()}
    return [*compared(START, "ms", seconds, scale=1000), *compared(MEMORY, "MB", megabytes)]


def installed() -> list[Row]:
    """Megabytes of the packages of `pip install torch` and of `coattn[runtime]`."""
    sizes = {name: [package_megabytes(needed)] for name, needed in PACKAGES.items()}
    return compared(INSTALLED, "MB", sizes)


PACKAGES = {"torch": ("torch",), "coattn[runtime]": ("coattn", "onnxruntime")}


def package_megabytes(names: Sequence[str]) -> float:
    """The files of installed packages and of all that they require without extras."""
    left, done, total = list(names), set(), 0
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in done:
            continue
        done.add(name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        total += sum(path.stat().st_size for file in package.files or [] if (path := Path(file.locate())).is_file())
        required = (text for text in package.requires or [] if "extra ==" not in text)
        left += [match[0] for text in required if (match := re.match(r"[\w.-]+", text))]
    return total / 1e6


def changed_answers(context: Context) -> list[Row]:
    """The share of test questions that int8 answers otherwise than the model, counted by `coattn export --check`."""
    from coattn.export import export_folder

    rows: list[Row] = []
    for case, folder, data in ((CHANGED_EASY, EASY_VQA, EASY_DATA), (CHANGED_CLEVR, SORT_OF_CLEVR, CLEVR_DATA)):
        if not folder.exists():
            print(f"{case}: not measured, because there is no {folder}")
            continue
        out = context.folder / f"changed_{len(rows)}"
        shutil.rmtree(out, ignore_errors=True)
        changed = export_folder(folder, out, int8=True, check=data).changed
        assert changed is not None
        share = 100 * changed.num_changed / changed.num_questions
        rows.append({"case": case, "implementation": INT8, "%": share, "questions": changed.num_questions})
    return rows


def server(context: Context, case: str, folder: Path) -> list[Row]:
    """Requests per second and latencies of `coattn serve` and of LitServe, in turns."""
    if importlib.util.find_spec("litserve") is None:
        print("servers are not measured: litserve is not installed")
        return []
    rounds, requests = (1, 200) if context.quick else (4, 5000)
    with served.coattn_server(folder) as ours, served.litserve_server(folder) as theirs:
        runs = {"LitServe, batches of 32": theirs, "coattn serve": ours}
        found = alternate({name: partial(served.ask_all, place, requests) for name, place in runs.items()}, rounds)
    rows = compared(case, "requests/s", {name: [one["requests/s"] for one in each] for name, each in found.items()})
    for row, each in zip(rows, found.values(), strict=True):
        row["p50 ms"], row["p99 ms"] = (summary([one[column] for one in each]) for column in ("p50 ms", "p99 ms"))
        row["p99 / p50"] = summary([one["p99 ms"] / one["p50 ms"] for one in each])
        row["lost"] = sum(one["lost"] for one in each)
    return rows


def photos(context: Context) -> list[Row]:
    """Milliseconds from a photo on the disk to an answer, beside vision-and-language models with random weights."""
    if any(importlib.util.find_spec(name) is None for name in ("torchvision", "transformers")):
        print("photos are not measured: coattn[vision,text] is not installed")
        return []
    folder = context.folder / "photo"
    if not folder.exists():
        subprocess.run(asker_command("make_photo", folder), check=True, env=environment())
    from benchmarks.images import draw_images

    photo = draw_images(context.folder / "photos", 1)["00000"]
    words = context.folder / "words.txt"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[ENC]",
        "[DEC]",
        "w",
        *(f"##{digit}" for digit in range(10)),
    ]
    words.write_text("\n".join(pieces))
    runs = {OURS: asker_command("photo", export(folder, context.folder / "photo_exported"), photo)}
    if not context.quick:  # these have one size, and no tiny one
        runs |= {VILT: asker_command("vilt", words, photo), BLIP: asker_command("blip", words, photo)}
    found = in_turns({name: (command, environment()) for name, command in runs.items()}, 1 if context.quick else 9)
    return compared(PHOTO, "ms", found, scale=1000)
