"""GQA and GQA-OOD: questions made from scene graphs of photos.

Sources: GQA (https://cs.stanford.edu/people/dorarad/gqa/download.html, Hudson & Manning 2019, arXiv 1902.09506):
questions1.2.zip, or unpacked. GQA-OOD (https://github.com/gqa-ood/GQA-OOD, Kervadec et al. 2021, arXiv 2006.05121):
ood_val_all.json, ood_testdev_head.json ...: questions of GQA, divided into frequent (head) and rare answers (tail).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from sys import intern
from typing import Any

from coattn.datasets.json_entries import File, Place, type_name, without_collector
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, answer_text, identifier, texts
from coattn.datasets.reader import Option, published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import json_object

# The last two have no published answers.
_SPLITS = ("train", "val", "testdev", "test", "challenge")
_UNANSWERED = ("test", "challenge")
_OOD = {
    f"{split}-{part}": f"ood_{split}_{part}.json" for split in ("val", "testdev") for part in ("all", "head", "tail")
}
# The values that the scores need, and the full answer. The places of words and the program as text are left out.
_KEPT = ("types", "groups", "entailed", "equivalent", "semantic", "isBalanced", "fullAnswer")


def read_gqa(
    files: str | Path,
    *,
    questions: str = "balanced",
    images: str | Path | None = None,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Read the splits of GQA that are there: train, val, testdev, and test and challenge without answers.

    `question_type` is GQA's structural type ("query", "verify", "logical", "choose", "compare"), `answer_type`
    "yes/no", "number" or "other". `extra` holds `types`, `groups`, `entailed`, `equivalent`, `semantic`, `isBalanced`
    and `fullAnswer`; `semanticStr` and `annotations` are left out.

    Args:
        files: folder or zip archive with the authors' files.
        questions: "balanced", or "all", which consistency is measured on; the ten files of its train are read as one.
        images: folder of the images.
        skip_bad_rows: leave defective records out instead of refusing their file.

    Raises:
        ValueError: a file is missing or damaged, or records are defective; the message names file and question.
        OSError: a file cannot be read.
    """
    names = {split: f"{split}_{questions}_questions.json" for split in _SPLITS}
    return _read(files, f"gqa {questions}", names, images, skip_bad_rows)


def read_gqa_ood(files: str | Path, *, images: str | Path | None = None, skip_bad_rows: bool = False) -> Dataset:
    """Read the splits of GQA-OOD that are there: val-all, val-head, val-tail, and the same of testdev.

    Records are those of `read_gqa`. Train on GQA; the head and tail splits are parts of the split "all".

    Raises:
        ValueError, OSError: as `read_gqa`.
    """
    return _read(files, "gqa-ood", _OOD, images, skip_bad_rows)


def _read(
    files: str | Path, name: str, names: Mapping[str, str], images: str | Path | None, skip_bad_rows: bool
) -> Dataset:
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    parts = {split: there for split, file in names.items() if (there := found.parts(file))}
    if not parts:
        raise found.absent(*names.values())
    with without_collector():
        splits = {split: _records(found, there, split) for split, there in parts.items()}
    return found.dataset(name, splits, images=images, notes=["score with coattn score --metric gqa"])


def _records(found: PublishedFiles, files: Sequence[File], split: str) -> list[Record]:
    shared: dict[tuple[str, ...], dict[str, Any]] = {}
    places: Iterator[Place] = chain.from_iterable(map(json_object, files))
    return found.bad.keep(files[0], places, partial(_record, split=split, shared=shared))


def _record(where: Place, split: str, shared: dict[tuple[str, ...], dict[str, Any]]) -> Record:
    (question,) = texts(where, "question")
    answer = "" if split in _UNANSWERED else answer_text(where)
    types = where.fields.get("types", {})
    if not isinstance(types, dict):
        where.fail(f"types is {type_name(types)}, must be an object")
    return Record(
        question_id=where.key,
        image_id=identifier(where, "imageId"),
        question=question,
        answers=(intern(answer),) if answer else (),
        answer_type=answer_type_of(answer) if answer else "",
        question_type=intern(str(types.get("structural") or "")),
        split=split,
        extra={key: _share(where.fields[key], shared) for key in _KEPT if key in where.fields},
    )


def _share(value: Any, shared: dict[tuple[str, ...], dict[str, Any]]) -> Any:
    """Keep equal objects once to save memory: few types, groups and steps differ."""
    if isinstance(value, list):
        return [_share(part, shared) if isinstance(part, dict) else part for part in value]
    if not isinstance(value, dict) or str(value.get("argument", "")).endswith(")"):  # a step that names one object
        return value
    return shared.setdefault((*value, *map(repr, value.values())), value)


READERS = {
    "gqa": published_reader(
        """\
GQA, from the authors' questions (questions1.2.zip, or unpacked)

  coattn prepare gqa GQA_FOLDER data/gqa --images GQA_FOLDER/images
  coattn prepare gqa GQA_FOLDER data/gqa_all --questions all""",
        read_gqa,
        {
            "questions": Option(
                "balanced", "Read the balanced questions or all of them (default balanced).", ("balanced", "all")
            )
        },
        checked="real files",
    ),
    "gqa-ood": published_reader(
        """\
GQA-OOD, GQA's questions divided by rare and frequent answers, from the authors' ood_testdev_tail.json ...

  coattn prepare gqa-ood GQA_OOD_FOLDER data/gqa_ood --images GQA_FOLDER/images""",
        read_gqa_ood,
        checked="real files: ood_testdev_head.json and ood_testdev_tail.json",
    ),
}
