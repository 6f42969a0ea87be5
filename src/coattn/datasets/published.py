"""The files of a data set as its authors publish them, unpacked or in zip archives, and what readers of them share."""

from __future__ import annotations

import itertools
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coattn._internal.files import decode_utf8, files_below
from coattn.datasets.image_files import ImageFolder, hold_out
from coattn.datasets.json_entries import File, Place, checked_id, checked_text, read_bytes
from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record

VALIDATION_NOTE = "train and val are together the official training split"


def itself(image_id: int | str) -> list[str]:
    """Images that are called like their ids."""
    return [str(image_id)]


def coco_names(image_id: int | str) -> list[str]:
    """Images of COCO, 2014's and 2017's: COCO_train2014_000000458752 or 000000458752."""
    number = f"{int(image_id):012d}"
    return [*(f"COCO_{part}_{number}" for part in ("train2014", "val2014", "test2015")), number]


class PublishedFiles:
    """The files of a folder, its subfolders, and the zip archives in them; or of one zip archive.

    Args:
        source: the folder or the archive.

    Attributes:
        damaged: what is wrong with archives that cannot be opened.
        skipped: what `distinct` left out.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        self.damaged: list[str] = []
        self.skipped: list[str] = []
        self._by_name: dict[str, list[tuple[int, str, File]]] = defaultdict(list)
        if self.source.is_dir():
            paths = [path for path in files_below(self.source) if path.is_file()]
        elif self.source.is_file() and self.source.suffix.lower() == ".zip":
            paths = [self.source]
        else:
            raise ValueError(f"{source} is neither a folder nor a zip archive; give where the authors' files are")
        for path in paths:
            self._add(path.relative_to(self.source).as_posix(), path, 0)
            if path.suffix.lower() == ".zip":
                self._add_archive(path)

    def _add_archive(self, path: Path) -> None:
        try:
            archive = _open_archive(path)
        except ValueError as error:
            self.damaged.append(str(error))
            return
        for name in archive.root.namelist():
            if not name.endswith("/") and not name.startswith("__MACOSX/"):
                self._add(name, archive / name, 1)

    def _add(self, name: str, file: File, packed: int) -> None:
        self._by_name[name.rpartition("/")[2].removesuffix(".gz")].append((packed, name, file))

    def find(self, *names: str) -> File | None:
        """The file called so, for example "train.json" or "train/questions.txt"; unpacked ones go first.

        Args:
            names: what it may be called, best first.

        Raises:
            ValueError: there are several of one name.
        """
        return next((file for name in names if (file := self._called(name)) is not None), None)

    def _called(self, name: str) -> File | None:
        found = [
            entry
            for entry in self._by_name.get(name.rpartition("/")[2], [])
            if f"/{entry[1]}".removesuffix(".gz").endswith(f"/{name}")
        ]
        best = [file for packed, _, file in found if packed == min(entry[0] for entry in found)]
        if len(best) > 1:
            raise ValueError(f"{self.source} holds {name} twice: {best[0]} and {best[1]}; remove one")
        return best[0] if best else None

    def need(self, *names: str, why: str = "") -> File:
        """The file called so; see `find`.

        Raises:
            ValueError: there is none, or several.
        """
        file = self.find(*names)
        if file is None:
            raise self.absent(*names, why=why)
        return file

    def splits(self, *names: Mapping[str, str]) -> dict[str, File]:
        """Split to file, of those that are there.

        Args:
            names: split to what its file is called; then what else it may be called.

        Raises:
            ValueError: there is none of them.
        """
        found = {split: self.find(*(name[split] for name in names)) for split in names[0]}
        if not any(found.values()):
            raise self.absent(*names[0].values())
        return {split: file for split, file in found.items() if file is not None}

    def parts(self, name: str) -> list[File]:
        """The file called so, for example "questions.json", and questions_0.json, questions_1.json ..."""
        stem, dot, suffix = name.rpartition(".")
        numbered = (self.find(f"{stem}_{number}{dot}{suffix}") for number in itertools.count())
        files = [self.find(name), *itertools.takewhile(bool, numbered)]
        return [file for file in files if file is not None]

    def archive(self, name: str) -> zipfile.Path:
        """The zip archive called so, for what is found by its place in it.

        Raises:
            ValueError: there is none, or several, or it is damaged.
        """
        return _open_archive(self.need(name))

    def absent(self, *names: str, why: str = "") -> ValueError:
        """The error that says that there is none of these files."""
        shown = sorted(name for name in self._by_name if not name.startswith("."))[:8]
        damaged = f". {self.damaged[0]}" if self.damaged else ""
        reason = f" ({why})" if why else ""
        return ValueError(
            f"{self.source} has no {' and no '.join(names)}{reason}, only {', '.join(shown) or 'nothing'}"
            f"{' ...' if len(self._by_name) > 8 else ''}{damaged}"
        )

    def distinct(self, placed: Iterable[tuple[Place, Record]]) -> list[Record]:
        """The records of a file, each once: one that says the same again is left out and listed.

        Args:
            placed: where each stands in the file, and the record.

        Raises:
            ValueError: two records with the same question id differ.
        """
        first: dict[int | str, tuple[int, Record]] = {}  # not the places, which hold all that the file says
        for place, record in placed:
            index, earlier = first.setdefault(record.question_id, (place.index, record))
            if earlier is record:
                continue
            named = f"{place}: question_id {record.question_id!r}"
            if earlier != record:
                raise ValueError(
                    f"{named} stands for another question at {place.kind} {index}; give every question its own"
                )
            self.skipped.append(f"{named} says the same as {place.kind} {index}")
        return [record for _, record in first.values()]

    def dataset(
        self,
        name: str,
        splits: Mapping[str, Sequence[Record]],
        *,
        metric: str = "exact_match",
        images: str | Path | None = None,
        image_names: Callable[[int | str], Sequence[str]] = itself,
        notes: Sequence[str] = (),
    ) -> Dataset:
        """The data set of records that were read from here.

        Args:
            name: of the reader.
            splits: split name to records.
            metric: see `Dataset`.
            images: folder of the images; None where only the questions are.
            image_names: of the file of an image, with or without suffix, by its id; the first that is there counts.
            notes: see `Dataset`.

        Raises:
            ValueError: the folder holds no image, or none that is asked about.
        """
        places, absent = ({}, []) if images is None else _locate_images(images, splits, image_names)
        return Dataset(
            name=name,
            source=str(self.source.resolve()),
            splits=splits,
            metric=metric,
            images=places,
            skipped=[*self.damaged, *self.skipped, *absent],
            notes=notes,
        )


def _open_archive(file: File) -> zipfile.Path:
    try:
        return zipfile.Path(zipfile.ZipFile(file if isinstance(file, Path) else file.open("rb")))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file}: not a whole zip archive ({error}); get the file again") from None


def read_text_file(path: File) -> str:
    """The text of a file, UTF-8.

    Raises:
        ValueError: it is not UTF-8 text; the message names line and byte.
        OSError: it cannot be read.
    """
    return decode_utf8(read_bytes(path), path)


def texts(where: Place, *keys: str) -> Iterator[str]:
    """The values of keys that must be there, as text that is not empty; numbers as JSON writes them."""
    for key in keys:
        value = where.get(key)
        if type(value) in (int, float):
            value = str(value)
        if not checked_text(value, key, where).strip():
            where.fail(f"{key} is empty; correct it, or remove the entry")
        yield value.strip()


def identifier(where: Place, key: str) -> int | str:
    """The value of a key that must be the id of a question or an image."""
    return checked_id(where.get(key), key, where)


def rest(entry: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """What an entry says beyond the keys that were used."""
    return {key: value for key, value in entry.items() if key not in used}


def with_validation(records: Sequence[Record], fraction: float) -> dict[str, list[Record]]:
    """The official training split, divided by image: splits train and val, or train alone for a fraction of 0.

    Raises:
        ValueError: the fraction is not in [0, 1), or leaves no image to train on.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"--val-fraction is {fraction}, must be at least 0 and below 1")
    if not fraction:
        return {"train": [*records]}
    images = {str(record.image_id) for record in records}
    held_out = hold_out(images, max(1, round(fraction * len(images))), seed=0)
    if len(held_out) == len(images):
        raise ValueError(f"{len(images)} images are too few to hold out some for val; say --val-fraction 0")
    splits: dict[str, list[Record]] = {"train": [], "val": []}
    for record in records:
        split = "val" if str(record.image_id) in held_out else "train"
        splits[split].append(record if record.split == split else replace(record, split=split))
    return splits


def _locate_images(
    folder: str | Path, splits: Mapping[str, Sequence[Record]], names: Callable[[int | str], Sequence[str]]
) -> tuple[dict[str, Path], list[str]]:
    """Image id, as text, to file; and a message for each image without a file, whose questions stay."""
    files = ImageFolder(folder)
    counts: dict[int | str, int] = defaultdict(int)
    for records in splits.values():
        for record in records:
            counts[record.image_id] += 1
    found, absent = {}, []
    for image_id, count in counts.items():
        file = next((file for name in names(image_id) if (file := files.get(name)) is not None), None)
        if file is None:
            absent.append(f"image {image_id!r}: no file in {folder}; it has {count} questions, which stay")
        else:
            found[str(image_id)] = files.folder / file
    if not found:
        example = next(iter(counts), "")
        wanted = " or ".join(names(example)[:3])
        raise ValueError(f"{folder} holds none of the {len(counts)} images asked about, for example {wanted}")
    return found, absent
