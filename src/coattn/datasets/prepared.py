"""What a reader returns, and the folder that `coattn prepare` makes of it.

OUT/{split}_questions.json      official layout (see vqa_json.py)
OUT/{split}_annotations.json
OUT/images.json                 image id -> file, relative to images.json, or absolute
OUT/images/                     only for data sets that come with their images
OUT/report.json                 what is in there (see report.py)
OUT/report.png                  the same as a picture, where matplotlib is installed
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coattn._internal.files import read_json, write_json
from coattn.datasets.json_entries import naming_archive
from coattn.datasets.records import Record
from coattn.datasets.report import build_report
from coattn.datasets.vqa_json import write_vqa

_REPORT = "report.json"
_SPLIT_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set as records.

    Attributes:
        name: of the reader, for example "easy-vqa".
        source: what it was read from. Preparing the same source again may overwrite the result.
        splits: split name to records.
        metric: "vqa_accuracy" or "exact_match".
        images: image id, as text, to image file (for the few data sets with images in arrays, what opens like one);
            empty where there are only ids.
        copy_images: whether the images go into the prepared folder; those in an archive have to.
        skipped: one message for each thing left out.
        notes: what else people should know.
    """

    name: str
    source: str
    splits: Mapping[str, Sequence[Record]]
    metric: str
    images: Mapping[str, Path | zipfile.Path] = field(default_factory=dict)
    copy_images: bool = False
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_dataset(
    dataset: Dataset,
    out: str | Path,
    *,
    has_features: Callable[[str], bool] | None = None,
    draw: Callable[[Mapping[str, Any], str, Path], None] | None = None,
) -> dict[str, Any]:
    """Write the folder of a data set and return its report.

    Everything is made in a temporary folder beside `out` and then moved there: on an error nothing has changed.

    Args:
        dataset: what to write.
        out: where to.
        has_features: whether there are features of an image, by its id; the report then counts those without.
        draw: draws the report, given the report, the name of the data set and the file to write; None draws nothing.

    Raises:
        ValueError: `out` holds something else, a split's name or the id of an image to copy cannot be part of a file
            name, or an archive of images is damaged.
        OSError: a file cannot be read or written.
    """
    folder = Path(os.path.abspath(out))
    for split in dataset.splits:
        if not _SPLIT_NAME.fullmatch(split):
            raise ValueError(f"split {split!r}: its name becomes part of a file name; use letters, digits, _ and -")
    stale = _files_of_last_time(dataset, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as name:
        partial = Path(name) / "made"
        partial.mkdir()
        for split, records in dataset.splits.items():
            write_vqa(partial, split, records, info={"dataset": dataset.name, "split": split, "metric": dataset.metric})
        if dataset.images:
            write_json(partial / "images.json", _place_images(dataset, partial, folder), indent=1)
        report = build_report(dataset.splits, dataset.metric, has_features)
        notes = [*dataset.notes]
        if draw is not None:
            try:
                draw(report, dataset.name, partial / "report.png")
            except ModuleNotFoundError as error:
                notes.append(f"no report.png: {error}")
        files = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
        head = {"prepared": dataset.name, "source": dataset.source, "metric": dataset.metric}
        report = {**head, **report, "notes": notes, "skipped": [*dataset.skipped], "files": [*files, _REPORT]}
        write_json(partial / _REPORT, report, indent=1)
        _move(partial, folder, report["files"], stale)
    return report


def _files_of_last_time(dataset: Dataset, folder: Path) -> list[str]:
    """The files that an earlier run on the same source left in `folder`; anything else there is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    last = read_json(folder / _REPORT) if (folder / _REPORT).is_file() else None
    if not isinstance(last, dict) or not isinstance(last.get("files"), list) or "prepared" not in last:
        raise ValueError(f"{folder} exists and was not made by coattn prepare; give another folder, or remove it")
    if (last["prepared"], last.get("source")) != (dataset.name, dataset.source):
        raise ValueError(
            f"{folder} holds {last['prepared']} prepared from {last.get('source')}, not {dataset.name} from "
            f"{dataset.source}; give another folder, or remove it"
        )
    return [file for file in map(str, last["files"]) if ".." not in Path(file).parts and not Path(file).is_absolute()]


def _place_images(dataset: Dataset, partial: Path, folder: Path) -> dict[str, str]:
    """Copy the images where they go along, and say where each is, seen from `folder`.

    Files below the parent of `folder` are named relatively, so that a project can be moved as a whole.
    """
    places = {}
    for image_id, path in dataset.images.items():
        if dataset.copy_images:
            if image_id.startswith("/") or ".." in image_id.split("/") or "\\" in image_id or "\0" in image_id:
                raise ValueError(
                    f"{dataset.source}: image id {image_id!r} (file {path}): its image is copied under this name, "
                    "which must not lead out of the folder; correct the id: no '..', no backslash, no '/' at the start"
                )
            places[image_id] = f"images/{image_id}{path.suffix}"
            target = partial / places[image_id]
            target.parent.mkdir(parents=True, exist_ok=True)
            with naming_archive(path), path.open("rb") as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        else:
            absolute = Path(os.path.abspath(str(path)))
            near = absolute.is_relative_to(folder.parent)
            places[image_id] = Path(os.path.relpath(absolute, folder) if near else absolute).as_posix()
    return places


def _move(partial: Path, folder: Path, files: Sequence[str], stale: Sequence[str]) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    for file in files:  # the report comes last
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (partial / file).replace(folder / file)
    for file in set(stale) - set(files):
        (folder / file).unlink(missing_ok=True)
