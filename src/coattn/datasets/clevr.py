"""CLEVR: 865 thousand questions about 100 thousand rendered scenes (Johnson et al. 2017, arXiv 1612.06890).

Source: https://cs.stanford.edu/people/jcjohns/clevr/ (CLEVR_v1.0.zip, or unpacked). Written from the published format;
not checked on real files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Any

from coattn.datasets.json_entries import File, Place, read_json_list, type_name, without_collector
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, identifier, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of


def read_clevr(files: str | Path, *, images: str | Path | None = None) -> Dataset:
    """Read the splits that are there: train, val, and test, whose answers are not published.

    Images are called like their files without suffix ("CLEVR_val_000042"). `question_type` is the last function of the
    question's program, which says what is asked; `question_family_index` stays in `extra`; the rest of the program is
    left out, for it is longer than all else. `answer_type` is "yes/no", "number" or "other".

    Raises:
        ValueError: a file is missing or not what it should be; the message names file and question.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    names = found.splits({split: f"CLEVR_{split}_questions.json" for split in ("train", "val", "test")})
    with without_collector():
        splits = {split: found.distinct(_records(file, split)) for split, file in names.items()}
    notes = ["score with coattn score --metric clevr"]
    return found.dataset("clevr", splits, images=images, notes=notes)


def _records(file: File, split: str) -> Iterator[tuple[Place, Record]]:
    for index, entry in enumerate(read_json_list(file, "questions").entries):
        where = Place(file, "question", index, entry)
        question, image = texts(where, "question", "image_filename")
        (answer,) = texts(where, "answer") if split != "test" else ("",)
        yield (
            where,
            Record(
                question_id=identifier(where, "question_index"),
                image_id=image.rpartition(".")[0] or image,
                question=question,
                answers=(intern(answer),) if answer else (),
                answer_type=answer_type_of(answer) if answer else "",
                question_type=_asked(entry.get("program") or [], where),
                split=split,
                extra={key: entry[key] for key in ("question_family_index",) if key in entry},
            ),
        )


def _asked(program: Any, where: Place) -> str:
    """The last function; in the generator's own files it is called "type"."""
    if not isinstance(program, list) or not all(isinstance(step, dict) for step in program):
        where.fail(f"program is {type_name(program)}, must be a list of objects")
    return intern(str(program[-1].get("function") or program[-1].get("type") or "")) if program else ""


READER = published_reader(
    """\
CLEVR, from the authors' questions (CLEVR_v1.0.zip, or unpacked)

  coattn prepare clevr CLEVR_v1.0 data/clevr --images CLEVR_v1.0/images""",
    read_clevr,
)
