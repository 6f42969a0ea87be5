"""Data sets whose questions come as one file per split: a description of the files is all that a reader needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coattn.datasets.json_entries import File, Place, read_json_list, read_json_table, without_collector
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, named_like_id
from coattn.datasets.records import Record


def json_list(file: File, key: str = "") -> Iterator[Place]:
    """The entries of a JSON file that is a list, or an object with a list under `key`."""
    for index, entry in enumerate(read_json_list(file, key).entries):
        yield Place(file, "question", index, entry)


def json_object(file: File) -> Iterator[Place]:
    """The entries of a JSON file that is an object of question ids and questions."""
    for index, (key, entry) in enumerate(read_json_table(file)):
        yield Place(file, "question", index, entry, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The files of a data set and the form of their records.

    Attributes:
        name: name of the reader, for example "slake en".
        files: split to the possible names of its file, best first.
        record: returns the record of an entry, given the split of its file; it may name another split.
        entries: reads the entries of a file.
        metric: "exact_match" or "vqa_accuracy"; "" chooses it by the number of answers.
        image_names: returns the possible file names of an image.
        notes: remarks about the data set, for people.
    """

    name: str
    files: Mapping[str, Sequence[str]]
    record: Callable[[Place, str], Record]
    entries: Callable[[File], Iterable[Place]] = json_list
    metric: str = "exact_match"
    image_names: Callable[[int | str], Sequence[str]] = named_like_id
    notes: Sequence[str] = ()


def read_format(
    form: Format,
    files: str | Path,
    *,
    images: str | Path | None = None,
    val_fraction: float = 0.0,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Read the splits whose files are there.

    Args:
        form: the files and the form of their records.
        files: folder or zip archive with the authors' files.
        images: folder of the images.
        val_fraction: share of the training images held out as val, if the data set has no val.
        skip_bad_rows: leave defective records out instead of refusing their file.

    Raises:
        ValueError: a file is missing or damaged, or records are defective; the message names file and record.
        OSError: a file cannot be read.
    """
    found = PublishedFiles(files, skip_bad_rows=skip_bad_rows)
    splits: dict[str, list[Record]] = {}
    with without_collector():
        for split, file in found.splits(form.files).items():
            for record in found.bad.keep(file, form.entries(file), _reader(form, split)):
                splits.setdefault(record.split, []).append(record)
    return found.dataset(
        form.name,
        {split: splits[split] for split in ("train", "val", *splits) if split in splits},
        metric=form.metric,
        images=images,
        image_names=form.image_names,
        val_fraction=val_fraction,
        notes=form.notes,
    )


def _reader(form: Format, split: str) -> Callable[[Place], Record]:
    return lambda place: form.record(place, split)
