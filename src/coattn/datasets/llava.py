"""Conversations about images in the JSON of LLaVA: each question with its answer.

Source: https://github.com/haotian-liu/LLaVA (Liu et al. 2023, arXiv 2304.08485): a list of objects with `id`, `image`
and `conversations`, in which "human" asks and "gpt" answers. Conversations without an image are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coattn.datasets.bad_records import UnusableRecordError
from coattn.datasets.json_entries import File, Place, checked_text, type_name
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import texts
from coattn.datasets.reader import VALIDATION, published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, json_list, read_format

# Not part of the question: the mark of the image, and the instruction of LLaVA 1.5's mixture for short answers.
_REMOVED = ("<image>", "Answer the question using a single word or phrase.")
_FILES = {"train": ("train.json",), "val": ("val.json", "validation.json"), "test": ("test.json",)}


def read_llava(
    files: str | Path, *, images: str | Path | None = None, val_fraction: float = 0.1, skip_bad_rows: bool = False
) -> Dataset:
    """Read train.json, val.json and test.json of a folder, or one file of any name as train.

    Question ids are `ID/0`, the pairs of a conversation from 0. Images are named by their path without suffix.

    Raises:
        ValueError: a file is missing or damaged, or conversations are defective; the message names file and record.
        OSError: a file cannot be read.
    """
    named = {"train": (Path(files).name,)} if Path(files).is_file() and Path(files).suffix.lower() != ".zip" else _FILES
    form = Format(name="llava", files=named, entries=_entries, record=_record, metric="")
    return read_format(form, files, images=images, val_fraction=val_fraction, skip_bad_rows=skip_bad_rows)


def _entries(file: File) -> Iterator[Place]:
    for place in json_list(file):
        turns = place.get("conversations")
        if not isinstance(turns, list):
            place.fail(f"conversations is {type_name(turns)}, must be a list of turns")
        for number in range(0, max(1, len(turns)), 2):
            entry = {**place.entry, "turns": turns[number : number + 2]}
            yield Place(file, "conversation", place.index, entry, f"{place.entry.get('id', place.index)}/{number // 2}")


def _record(where: Place, split: str) -> Record:
    if not where.fields.get("image"):
        raise UnusableRecordError(where, "the conversation has no image")
    (image,) = texts(where, "image")
    turns = where.fields["turns"]
    if [_speaker(turn) for turn in turns] != ["human", "gpt"]:
        where.fail("a question of 'human' must be followed by an answer of 'gpt'; correct the conversation")
    question, answer = (checked_text(turn.get("value"), "value", where) for turn in turns)
    for part in _REMOVED:
        question = question.replace(part, "")
    question, answer = " ".join(question.split()), answer.strip()
    if not question:
        where.fail("the question is empty; correct it")
    if not answer:
        raise UnusableRecordError(where, "the answer is empty")
    return Record(
        question_id=where.key,
        image_id=image.rpartition(".")[0] or image,
        question=question,
        answers=(answer,),
        answer_type=answer_type_of(answer),
        split=split,
    )


def _speaker(turn: Any) -> str:
    return str(turn.get("from")) if isinstance(turn, dict) else ""


READER = published_reader(
    """\
conversations about images in LLaVA's JSON (id, image, conversations), each question with its answer

  coattn prepare llava my_conversations.json data/mine --images photos""",
    read_llava,
    VALIDATION,
    checked="layout of the authors' documentation; no real file was at hand",
)
