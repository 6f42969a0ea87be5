"""The files of a published data set, unpacked or in zip archives, and helpers that their readers share."""

from __future__ import annotations

import itertools
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from coattn._internal.files import decode_utf8, files_below
from coattn.datasets.bad_records import BadRecords, LeftOut, UnusableRecordError
from coattn.datasets.copies import find_copies
from coattn.datasets.dividing import divide
from coattn.datasets.image_files import ImageFolder
from coattn.datasets.json_entries import File, Place, checked_id, checked_text, read_bytes
from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record, default_metric

VALIDATION_NOTE = "train and val are together the official training split"


def named_like_id(image_id: int | str) -> list[str]:
    """File name of an image that is named like its id."""
    return [str(image_id)]


def coco_names(image_id: int | str) -> list[str]:
    """File names of an image of COCO, of 2014 and of 2017: COCO_train2014_000000458752 or 000000458752."""
    number = f"{int(image_id):012d}"
    return [*(f"COCO_{part}_{number}" for part in ("train2014", "val2014", "test2015")), number]


class PublishedFiles:
    """The files of a folder, its subfolders, and the zip archives in them; or of one zip archive; or one file.

    Args:
        source: the folder, the archive or the file.
        skip_bad_rows: leave defective records out instead of refusing their file.

    Attributes:
        bad: collects the records that are left out, and the archives that cannot be opened.

    Raises:
        ValueError: `source` is neither a folder nor a regular file.
    """

    def __init__(self, source: str | Path, *, skip_bad_rows: bool = False) -> None:
        self.source = Path(source)
        self.bad = BadRecords(skip_bad_rows)
        self._by_name: dict[str, list[tuple[int, str, File]]] = defaultdict(list)
        if self.source.is_dir():
            paths = [path for path in files_below(self.source) if path.is_file()]
        elif self.source.is_file():
            paths = [self.source]
        else:
            raise ValueError(f"{source} is neither a folder nor a file; give the place of the authors' files")
        for path in paths:
            self._add(path.relative_to(self.source).as_posix() if path != self.source else path.name, path, 0)
            if path.suffix.lower() == ".zip":
                self._add_archive(path)

    def _add_archive(self, path: Path) -> None:
        try:
            archive = _open_archive(path)
        except ValueError as error:
            self.bad.left_out.append(LeftOut(str(path), str(error).removeprefix(f"{path}: ")))
            return
        for name in archive.root.namelist():
            if not name.endswith("/") and not name.startswith("__MACOSX/"):
                self._add(name, archive / name, 1)

    def _add(self, name: str, file: File, packed: int) -> None:
        self._by_name[name.rpartition("/")[2].removesuffix(".gz")].append((packed, name, file))

    def find(self, *names: str) -> File | None:
        """Find a file by name, for example "train.json" or "train/questions.txt"; unpacked files are preferred.

        Args:
            names: the possible names, best first.

        Raises:
            ValueError: several files have that name.
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
        """Find a required file; see `find`.

        Args:
            names: the possible names, best first.
            why: why it is needed, for the message.

        Raises:
            ValueError: there is no such file, or there are several.
        """
        file = self.find(*names)
        if file is None:
            raise self.absent(*names, why=why)
        return file

    def splits(self, names: Mapping[str, Sequence[str]]) -> dict[str, File]:
        """Find the files of the splits that are there.

        Args:
            names: split to the possible names of its file, best first.

        Raises:
            ValueError: there is none of them.
        """
        found = {split: self.find(*possible) for split, possible in names.items()}
        if not any(found.values()):
            raise self.absent(*(possible[0] for possible in names.values()))
        return {split: file for split, file in found.items() if file is not None}

    def parts(self, name: str) -> list[File]:
        """Find a file, for example "questions.json", and its parts questions_0.json, questions_1.json ..."""
        stem, dot, suffix = name.rpartition(".")
        numbered = (self.find(f"{stem}_{number}{dot}{suffix}") for number in itertools.count())
        files = [self.find(name), *itertools.takewhile(bool, numbered)]
        return [file for file in files if file is not None]

    def archive(self, name: str) -> zipfile.Path:
        """Open the zip archive of that name.

        Raises:
            ValueError: there is none, or several, or it is damaged.
        """
        return _open_archive(self.need(name))

    def absent(self, *names: str, why: str = "") -> ValueError:
        """The error for missing files; it lists the files that are there."""
        shown = sorted(name for name in self._by_name if not name.startswith("."))[:8]
        damaged = f". {self.bad.left_out[0]}" if self.bad.left_out else ""
        reason = f" ({why})" if why else ""
        return ValueError(
            f"{self.source} has no {' and no '.join(names)}{reason}, only {', '.join(shown) or 'nothing'}"
            f"{' ...' if len(self._by_name) > 8 else ''}{damaged}"
        )

    def dataset(
        self,
        name: str,
        splits: Mapping[str, Sequence[Record]],
        *,
        metric: str = "exact_match",
        images: str | Path | None = None,
        image_names: Callable[[int | str], Sequence[str]] = named_like_id,
        val_fraction: float = 0.0,
        notes: Sequence[str] = (),
    ) -> Dataset:
        """Make the data set of the records that were read from these files.

        If the data set has no val, images of the official training split are held out. Byte-identical copies of a
        picture stay on one side.

        Args:
            name: name of the reader.
            splits: split name to records.
            metric: see `Dataset`; "" chooses it by the number of answers.
            images: folder of the images; None if there are only questions.
            image_names: returns the possible file names of an image, with or without suffix; the first match counts.
            val_fraction: share of the training images that are held out as val; 0 holds out none.
            notes: see `Dataset`.

        Raises:
            ValueError: the folder holds no image, or none that a question is about, or the fraction is not in [0, 1).
        """
        if not 0 <= val_fraction < 1:
            raise ValueError(f"--val-fraction is {val_fraction}, must be at least 0 and below 1")
        places, absent = ({}, []) if images is None else _locate_images(images, splits, image_names)
        copies = find_copies(places)
        notes = [*notes]
        if val_fraction and "train" in splits and "val" not in splits:
            if len({record.image_id for record in splits["train"]}) > 1:
                divided = divide(splits["train"], {"val": val_fraction}, seed=0, copies=copies)
                others = {split: records for split, records in splits.items() if split != "train"}
                splits = {"train": divided["train"], "val": divided["val"], **others}
                notes.append(VALIDATION_NOTE)
            else:
                notes.append("train has one image, so that none is held out as val")
        return Dataset(
            name=name,
            source=str(self.source.resolve()),
            splits=splits,
            metric=metric or default_metric([*chain.from_iterable(splits.values())], several="vqa_accuracy"),
            images=places,
            skipped=[*self.bad.left_out, *absent],
            copies=copies,
            notes=notes,
        )


def _open_archive(file: File) -> zipfile.Path:
    try:
        return zipfile.Path(zipfile.ZipFile(file if isinstance(file, Path) else file.open("rb")))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file}: not a whole zip archive ({error}); download it again") from None


def read_text_file(path: File) -> str:
    """Read a UTF-8 text file.

    Raises:
        ValueError: it is not UTF-8 text; the message names line and byte.
        OSError: it cannot be read.
    """
    return decode_utf8(read_bytes(path), path)


def texts(where: Place, *keys: str) -> Iterator[str]:
    """The values of required keys, as text that is not empty; numbers as JSON writes them."""
    for key in keys:
        value = where.get(key)
        if type(value) in (int, float):
            value = str(value)
        if not checked_text(value, key, where).strip():
            where.fail(f"{key} is empty; correct it, or remove the entry")
        yield value.strip()


def answer_text(where: Place, key: str = "answer") -> str:
    """The answer under a required key, as text; numbers as JSON writes them, true and false as "yes" and "no".

    Raises:
        UnusableRecordError: the answer is empty or null, as in one entry of SLAKE 1.0.
        BadRecordError: the key is missing, or its value is no answer.
    """
    value = where.get(key)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if type(value) in (int, float):
        return str(value)
    if value is None or not checked_text(value, key, where).strip():
        raise UnusableRecordError(where, "the answer is empty")
    return str(value).strip()


def identifier(where: Place, key: str) -> int | str:
    """The value of a required key that is the id of a question or an image."""
    return checked_id(where.get(key), key, where)


def rest(entry: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """The values of an entry under all keys but the used ones."""
    return {key: value for key, value in entry.items() if key not in used}


def _locate_images(
    folder: str | Path, splits: Mapping[str, Sequence[Record]], names: Callable[[int | str], Sequence[str]]
) -> tuple[dict[str, Path], list[LeftOut]]:
    """Map image ids, as text, to files; and report each image without a file, whose questions stay."""
    files = ImageFolder(folder)
    counts: dict[int | str, int] = defaultdict(int)
    for records in splits.values():
        for record in records:
            counts[record.image_id] += 1
    found, absent = {}, []
    for image_id, count in counts.items():
        file = next((file for name in names(image_id) if (file := files.get(name)) is not None), None)
        if file is None:
            absent.append(
                LeftOut(f"image {image_id!r}", f"no file of this name is in the folder; its {count} questions stay")
            )
        else:
            found[str(image_id)] = files.folder / file
    if not found:
        example = next(iter(counts), "")
        wanted = " or ".join(names(example)[:3])
        raise ValueError(f"{folder} holds none of the {len(counts)} images asked about, for example {wanted}")
    return found, absent
