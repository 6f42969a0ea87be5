"""Tables, published data sets and results to be damaged: small examples, and the functions that read them."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from format import Format, command
from model_files import inspected, make_model, photo
from published_fixtures import SETS, lay_out
from tiny import write_data

from coattn.datasets.readers import READERS


def write_texts(folder: Path, files: Mapping[str, Any]) -> None:
    lay_out(folder, files)


ROWS = [
    {"image": f"{number}.png", "question": "What is it?", "answer": ("cup", "cat")[number % 2], "split": split}
    for number, split in enumerate(("train", "train", "val", "test"))
]


CSV = "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]) + "\n"


def make_table(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)


def make_parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import feather, parquet

    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, folder / "table.parquet")
    (folder / "other").mkdir()
    feather.write_feather(table, folder / "other" / "data.arrow")


def read_first(command_name: str, folder: Path) -> Any:
    """Read a data set as `coattn prepare` does, without writing it."""
    name, *options = command_name.split()
    parser = ArgumentParser()
    READERS[name].add_arguments(parser)
    places = [path for path in sorted(folder.iterdir()) if path.is_file()]
    source = places[0] if name == "table" and places else folder
    return READERS[name].from_arguments(parser.parse_args([str(source), *options])).splits


def make_daquar(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(6):
        photo().save(folder / "images" / f"image{number}.png")
    pairs = [f"what is on the left of image{number} ?\nchair\n" for number in range(6)]
    (folder / "all_qa_pairs.txt").write_text("".join(pairs))
    (folder / "train_images_list.txt").write_text("".join(f"image{number}\n" for number in range(1, 6)))
    (folder / "test_images_list.txt").write_text("image0\n")


def make_sort_of_clevr(folder: Path) -> None:
    row = {"question": "what is the shape of the red object ?", "answer": "circle", "type": "nonrel"}
    for split in ("train", "test"):
        lines = "".join(json.dumps({**row, "image": f"{number:05}.png"}) + "\n" for number in range(12))
        (folder / f"sort_of_clevr_{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        with zipfile.ZipFile(folder / f"sort_of_clevr_{split}_images.zip", "w") as archive:
            for number in range(12):
                png = io.BytesIO()
                photo(number).save(png, "PNG")
                archive.writestr(f"{number:05}.png", png.getvalue())


def prepare(command_name: str, folder: Path) -> Any:
    """Read and write a data set by the command, with its pictures."""
    name, *options = command_name.split()
    with tempfile.TemporaryDirectory() as out:
        command("prepare", name, folder, Path(out, "data"), *options)
        return [path.read_bytes() for path in sorted(Path(out, "data").glob("*.json")) if path.name != "report.json"]


def make_prepared(folder: Path) -> None:
    make_table("table.csv", CSV, folder)
    for number in range(4):
        photo(number).save(folder / f"{number}.png")
    command("prepare", "table", folder / "table.csv", folder / "data", "--images", folder)
    (folder / "table.csv").unlink()


def make_results(folder: Path) -> None:
    write_data(folder)
    (folder / "features.h5").unlink()
    records = json.loads((folder / "test_questions.json").read_text())["questions"]
    doubts = {"withheld": False, "reasons": ["The image is unlike the others."], "unknown_words": []}
    results = [{"question_id": each["question_id"], "answer": "red", "confidence": 0.75} | doubts for each in records]
    (folder / "results.json").write_text(json.dumps(results))
    lines = [json.dumps({"question_id": each["question_id"], "text": "red"}) for each in records]
    (folder / "results.jsonl").write_text("\n".join(lines))
    (folder / "results.txt").write_text("red\n" * len(records))
    for number in range(9):
        (folder / "test").mkdir(exist_ok=True)
        photo(number).save(folder / "test" / f"{number}.png")
    (folder / "images.json").write_text(json.dumps({f"test/{number}": f"test/{number}.png" for number in range(9)}))


def score(folder: Path) -> Any:
    files = [f"--{kind}={folder}/test_{kind}.json" for kind in ("questions", "annotations")]
    return [command("score", folder / f"results.{kind}", *files) for kind in ("json", "jsonl", "txt")]


def browse(folder: Path) -> Any:
    files = [f"--{kind}={folder}/test_{kind}.json" for kind in ("questions", "annotations")]
    files += [f"--images={folder}/images.json", f"--train-questions={folder}/train_questions.json"]
    with tempfile.TemporaryDirectory() as out:
        command("browse", folder / "results.json", *files, "--out", f"{out}/page.html")
        return Path(out, "page.html").read_text()


def make_asked_table(folder: Path) -> None:
    make_model(folder)
    photo().save(folder / "0.png")
    (folder / "table.csv").write_text("image,question\n0.png,what is it\n0.png,is it red\n")


def ask_table(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = ["--table", folder / "table.csv", "--images", folder, "--out", f"{out}/answers.csv"]
        command("ask", folder / "model", *options)
        return Path(out, "answers.csv").read_text()


FORMATS: dict[str, Format] = {
    "inspected data set": Format(make_prepared, lambda folder: inspected(folder / "data"), (), 2),
    "CSV": Format(partial(make_table, "table.csv", CSV), partial(read_first, "table"), (), 2),
    "TSV": Format(partial(make_table, "table.tsv", CSV.replace(",", "\t")), partial(read_first, "table")),
    "JSON table": Format(partial(make_table, "table.json", json.dumps(ROWS)), partial(read_first, "table")),
    "JSON lines": Format(
        partial(make_table, "table.jsonl", "\n".join(map(json.dumps, ROWS))), partial(read_first, "table")
    ),
    "Parquet": Format(make_parquet, partial(read_first, "table"), (), 1, ("other/*",)),
    "Arrow": Format(make_parquet, lambda folder: read_first("table", folder / "other"), (), 1, ("*.parquet",)),
    **{
        name: Format(partial(write_texts, files=files), partial(read_first, name), (), 0.5)
        for name, files in SETS.items()
    },
    "DAQUAR": Format(make_daquar, partial(read_first, "daquar")),
    "Sort-of-CLEVR": Format(make_sort_of_clevr, partial(prepare, "sort-of-clevr"), (), 0.5),
    "results": Format(make_results, score, (), 3, ("train*", "val*", "images.json", "test/*")),
    "page of results": Format(make_results, browse, (), 1, ("val*", "*.txt", "*.jsonl")),
    "asked table": Format(make_asked_table, ask_table, (), 1, ("model/*",)),
}
