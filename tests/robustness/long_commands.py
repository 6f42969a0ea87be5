"""Every command that writes files and may take long, on tiny inputs: how it is called, and what it leaves.

A new command is one entry of `COMMANDS`. `make` writes the inputs into a folder, `arguments` are those of the command,
and `result` reads what it has written, as its users do.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from feature_files import Made, write_tsv
from model_files import command, make_model, make_text_encoder, photo, trained
from stores import write as write_store

from coattn._internal.files import files_below
from coattn.datasets.results import read_results
from coattn.datasets.vqa_json import read_vqa
from coattn.explain.abstain import Safeguards
from coattn.features.convert import run as convert_run
from coattn.features.extract import run as extract_run
from coattn.features.store.reader import FeatureStore
from coattn.serialization.directory import load_directory
from coattn.training.checkpoints import read_checkpoint

# Several shards of a few images, to be killed between them.
SMALL_SHARDS = ((extract_run, "_UNIT_IMAGES"), (convert_run, "_UNIT_IMAGES"))


class LongCommand(NamedTuple):
    """One command.

    Attributes:
        make: writes its inputs, and an older result that it replaces, if there is one.
        arguments: of the command, given the folder.
        result: reads what it has written; raises ValueError or OSError while that is not complete.
        ignored: names of files and folders whose number grows with each start.
        replaces: whether the older result stays usable until the new one is there.
        kills: how many of 200 kills hit it.
    """

    make: Callable[[Path], object]
    arguments: Callable[[Path], Sequence[object]]
    result: Callable[[Path], Any]
    ignored: tuple[str, ...] = ()
    replaces: bool = True
    kills: int = 15


def contents(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The hashes of all files of a folder or of one file, by their paths."""
    if not folder.exists():
        raise FileNotFoundError(folder)
    files = [folder] if folder.is_file() else [path for path in files_below(folder) if path.name not in without]
    return {str(path.relative_to(folder.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make_photos(folder: Path) -> None:
    (folder / "photos").mkdir()
    for number in range(24):
        photo(number).save(folder / "photos" / f"{number}.png")


def make_tsv(folder: Path) -> None:
    write_tsv(folder / "a.tsv", [(str(number), Made(number, 36, dim=64)) for number in range(24)])


def make_stores(folder: Path) -> None:
    for name in "ab":
        write_store(folder / f"{name}.h5", dim=64, prefix=name)
    (folder / "merged.h5").write_bytes((folder / "a.h5").read_bytes())


def make_questions(folder: Path) -> None:
    make_text_encoder(folder / "encoder")
    (folder / "q.txt").write_text("".join(f"what is it {'red ' * number}?\n" for number in range(12)))


def store(path: Path) -> Any:
    """A store that opens, and the bytes of its files, except those of the index that is made from them."""
    opened = FeatureStore(path)
    opened.read_flat(np.arange(len(opened)))
    found = contents(path)
    return {name: value for name, value in found.items() if not Path(name).name.startswith((".", "index.npz"))}


def make_table(folder: Path) -> None:
    make_photos(folder)
    rows = [f"{number}.png,is it {c}?,{('yes', 'no')[number % 2]}" for number in range(20) for c in ("red", "blue")]
    (folder / "table.csv").write_text("\n".join(["image,question,answer", *rows]) + "\n")


def make_prepared_again(folder: Path) -> None:
    make_table(folder)
    command("prepare", "table", folder / "table.csv", folder / "data", "--images", folder / "photos")
    rows = (folder / "table.csv").read_text().replace("yes", "maybe")
    (folder / "table.csv").write_text(rows)


def prepared(folder: Path) -> Any:
    """The questions of all splits, and the bytes of all files but the picture."""
    found = contents(folder, without=("report.png",))
    for questions in folder.glob("*_questions.json"):
        annotations = questions.with_name(questions.name.replace("_questions", "_annotations"))
        read_vqa(questions, annotations)
    if not (folder / "report.json").exists():
        raise FileNotFoundError(folder / "report.json")
    return found


def make_run(folder: Path) -> None:
    shutil.copy(trained() / "run.yaml", folder / "run.yaml")
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    settings["trainer"] |= {"default_root_dir": str(folder / "run"), "max_epochs": 2}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))


def make_finished_run(folder: Path) -> None:
    make_run(folder)
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    settings["trainer"] |= {"max_epochs": 1}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    command("fit", "--config", folder / "run.yaml")


def run(folder: Path) -> Any:
    """The model of a run, whose checkpoints must be whole, without the times in its card and record."""
    for checkpoint in folder.glob("checkpoints/*"):
        if not checkpoint.name.endswith(".partial"):
            read_checkpoint(checkpoint, complete=True)
    load_directory(folder / "model")
    found = contents(folder / "model", without=("README.md",))
    Safeguards.load(folder / "model")
    return found


def make_training(folder: Path) -> None:
    make_table(folder)
    sizes = {"dim": 16, "num_layers": 1, "ffn_dim": 16, "embedding_dim": 8, "boxes": True}
    trainer = {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False}
    config = {"trainer": trainer, "data": {"batch_size": 16}, "model": {"preset": "modular", "sizes": sizes}}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))


def trained_run(folder: Path) -> Any:
    if not (folder / "report.html").exists():
        raise FileNotFoundError(folder / "report.html")
    models = {name: run(folder / name) for name in (".", "question_only")}
    return models, json.loads((folder / "scores.json").read_text()), prepared(folder / "data")


def make_answers(folder: Path) -> None:
    """An older file of answers to replace."""
    (folder / "out").mkdir()
    (folder / "out" / "answers.json").write_text('[{"question_id": 1, "answer": "old"}]')


def answers(path: Path) -> Any:
    return contents(path), len(read_results(path).answers)


def make_certified(folder: Path) -> None:
    shutil.copytree(trained() / "run" / "model", folder / "model")
    for name in ("certificate.json", "index.safetensors"):
        (folder / "model" / name).unlink()


def certified(folder: Path) -> Any:
    guards = Safeguards.load(folder)
    if guards.missing:
        raise ValueError(guards.missing)
    load_directory(folder)
    return contents(folder)


def exported(folder: Path) -> Any:
    from coattn import runtime

    return [answer.text for answer in runtime.Predictor.load(folder).ask(photo(), "what color is it")]


def make_asked_table(folder: Path) -> None:
    make_model(folder)
    make_photos(folder)
    rows = "".join(f"{number % 24}.png,what is it\n" for number in range(400))
    (folder / "table.csv").write_text("image,question\n" + rows)


def whole_page(path: Path) -> Any:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError(f"{path}: not a whole page")
    return contents(path)


def whole_table(path: Path) -> Any:
    if path.read_text().count("\n") != 401:
        raise ValueError(f"{path}: not a whole table")
    return contents(path)


def data_files(split: str) -> list[str]:
    return [f"--{kind}={trained()}/{split}_{kind}.json" for kind in ("questions", "annotations")]


COMMANDS: dict[str, LongCommand] = {
    "extract": LongCommand(
        make_photos, lambda f: ("extract", f / "photos", f / "store"), lambda f: store(f / "store"), kills=18
    ),
    "convert": LongCommand(
        make_tsv,
        lambda f: ("convert", "bottom-up-tsv", f / "a.tsv", f / "store"),
        lambda f: store(f / "store"),
        kills=18,
    ),
    "convert merge": LongCommand(
        make_stores,
        lambda f: ("convert", "merge", f / "a.h5", f / "b.h5", f / "c.h5"),
        lambda f: store(f / "c.h5"),
    ),
    "embed": LongCommand(
        make_questions,
        lambda f: ("embed", f / "q.txt", f / "store", "--encoder", f / "encoder"),
        lambda f: store(f / "store"),
    ),
    "prepare": LongCommand(
        make_table,
        lambda f: ("prepare", "table", f / "table.csv", f / "data", "--images", f / "photos"),
        lambda f: prepared(f / "data"),
        kills=10,
    ),
    "prepare again": LongCommand(
        make_prepared_again,
        lambda f: ("prepare", "table", f / "table.csv", f / "data", "--images", f / "photos"),
        lambda f: prepared(f / "data"),
        kills=15,
    ),
    "fit": LongCommand(
        make_run,
        lambda f: ("fit", "--config", f / "run.yaml", "--resume"),
        lambda f: run(f / "run"),
        ("logs",),
        kills=24,
    ),
    "fit over a run": LongCommand(
        make_finished_run,
        lambda f: ("fit", "--config", f / "run.yaml", "--overwrite", "--trainer.max_epochs", 2),
        lambda f: run(f / "run"),
        ("logs",),
        replaces=False,
        kills=10,
    ),
    "train": LongCommand(
        make_training,
        lambda f: (
            *("train", f / "table.csv", "--images", f / "photos", "--out", f / "run"),
            *("--config", f / "small.yaml"),
        ),
        lambda f: trained_run(f / "run"),
        ("logs",),
        kills=15,
    ),
    "predict": LongCommand(
        make_answers,
        lambda f: (
            *("predict", "--config", trained() / "run.yaml", "--output", f / "out" / "answers.json"),
            *("--ckpt_path", trained() / "run" / "model"),
        ),
        lambda f: answers(f / "out" / "answers.json"),
    ),
    "test": LongCommand(
        lambda folder: shutil.copytree(trained() / "run", folder / "run"),
        lambda f: ("test", "--config", trained() / "run.yaml", "--trainer.default_root_dir", f / "run"),
        lambda f: answers(f / "run" / "predictions" / "test.json"),
        ("logs",),
        kills=10,
    ),
    "certify": LongCommand(
        make_certified,
        lambda f: ("certify", f / "model", "--config", trained() / "run" / "config.yaml"),
        lambda f: certified(f / "model"),
    ),
    "export": LongCommand(
        make_model, lambda f: ("export", f / "model", f / "out"), lambda f: exported(f / "out"), kills=6
    ),
    "browse": LongCommand(
        lambda folder: (folder / "page.html").write_text("<html>old</html>"),
        lambda f: (
            *("browse", trained() / "run" / "predictions" / "test.json", *data_files("test")),
            *("--out", f / "page.html"),
        ),
        lambda f: whole_page(f / "page.html"),
        kills=10,
    ),
    "ask --table": LongCommand(
        make_asked_table,
        lambda f: (
            *("ask", f / "model", "--table", f / "table.csv", "--images", f / "photos"),
            *("--out", f / "answers.csv"),
        ),
        lambda f: whole_table(f / "answers.csv"),
    ),
}
