"""GQA: 22 million questions made from scene graphs of photos (Hudson & Manning 2019, arXiv 1902.09506).

Source: https://cs.stanford.edu/people/dorarad/gqa/download.html (questions1.2.zip or unpacked). Checked on three real
questions; the division into files was written from the published description.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Any

from coattn.datasets.json_entries import File, Place, read_json_table, type_name, without_collector
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, identifier, texts
from coattn.datasets.reader import Option, published_reader
from coattn.datasets.records import Record, answer_type_of

_SPLITS = ("train", "val", "testdev", "test", "challenge")
# What the scores need, and the full answer. Left out: the places of words in the image, and the program as text.
_KEPT = ("types", "groups", "entailed", "equivalent", "semantic", "isBalanced", "fullAnswer")


def read_gqa(files: str | Path, *, questions: str = "balanced", images: str | Path | None = None) -> Dataset:
    """Read the splits that are there: train, val, testdev, and test and challenge, whose answers are not published.

    `question_type` is GQA's structural type ("query", "verify", "logical", "choose", "compare"), `answer_type`
    "yes/no", "number" or "other". In `extra` stay `types`, `groups`, `entailed`, `equivalent`, `semantic`,
    `isBalanced` and `fullAnswer`; `semanticStr` and `annotations` are left out.

    Args:
        files: folder or zip archive with the authors' files.
        questions: "balanced", or "all", which consistency is measured on; train then lies in ten files.
        images: folder of the images.

    Raises:
        ValueError: a file is missing or not what it should be; the message names file and question.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files)
    names = {split: f"{split}_{questions}_questions.json" for split in _SPLITS}
    parts = {split: there for split, name in names.items() if (there := found.parts(name))}
    if not parts:
        raise found.absent(*names.values())
    with without_collector():
        splits = {split: list(_records(there, split)) for split, there in parts.items()}
    notes = ["score with coattn score --metric gqa"]
    return found.dataset(f"gqa {questions}", splits, images=images, notes=notes)


def _records(files: list[File], split: str) -> Iterator[Record]:
    seen: set[str] = set()
    shared: dict[tuple[str, ...], dict[str, Any]] = {}
    for file in files:
        for index, (question_id, entry) in enumerate(read_json_table(file)):
            where = Place(file, f"question {question_id!r}, number", index, entry)
            if question_id in seen:
                where.fail("stands there a second time; keep one")
            seen.add(question_id)
            yield _record(question_id, entry, where, split, shared)


def _record(
    question_id: str, entry: Any, where: Place, split: str, shared: dict[tuple[str, ...], dict[str, Any]]
) -> Record:
    (question,) = texts(where, "question")
    (answer,) = texts(where, "answer") if split not in ("test", "challenge") else ("",)
    types = entry.get("types", {})
    if not isinstance(types, dict):
        where.fail(f"types is {type_name(types)}, must be an object")
    return Record(
        question_id=question_id,
        image_id=identifier(where, "imageId"),
        question=question,
        answers=(intern(answer),) if answer else (),
        answer_type=answer_type_of(answer) if answer else "",
        question_type=intern(str(types.get("structural") or "")),
        split=split,
        extra={key: _share(entry[key], shared) for key in _KEPT if key in entry},
    )


def _share(value: Any, shared: dict[tuple[str, ...], dict[str, Any]]) -> Any:
    """Equal objects once: few types, groups and steps differ, but for steps that name an object of the image."""
    if isinstance(value, list):
        return [_share(part, shared) if isinstance(part, dict) else part for part in value]
    if not isinstance(value, dict) or str(value.get("argument", "")).endswith(")"):
        return value
    return shared.setdefault((*value, *map(repr, value.values())), value)


READER = published_reader(
    """\
GQA, from the authors' questions (questions1.2.zip, or unpacked)

  coattn prepare gqa GQA_FOLDER data/gqa --images GQA_FOLDER/images
  coattn prepare gqa GQA_FOLDER data/gqa_all --questions all""",
    read_gqa,
    {"questions": Option("balanced", "the balanced questions, or all of them (default balanced)", ("balanced", "all"))},
)
