"""The data set that a reader returns, and the folder that `coattn prepare` makes of it.

OUT/{split}_questions.json      official layout (see vqa_json.py)
OUT/{split}_annotations.json
OUT/images.json                 image id -> file, relative to images.json, or absolute
OUT/images/                     only for data sets that come with their images
OUT/report.json                 description of the content (see report.py)
OUT/report.png                  the same as a picture, where matplotlib is installed
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coattn._internal.files import partial_folder, read_json, sync, write_json
from coattn.datasets.bad_records import LeftOut, count_reasons
from coattn.datasets.copies import find_copies, find_near_copies
from coattn.datasets.json_entries import check_regular, naming_archive
from coattn.datasets.records import Record
from coattn.datasets.report import build_report
from coattn.datasets.vqa_json import UNFINISHED, write_vqa

MAX_NEAR_COPIES = 2000  # images among which near copies are looked for by default; each has to be decoded
REPORT = "report.json"
_SPLIT_NAME = re.compile(r"[\w-]+")
# All files that this module writes, relative to the folder. It removes no others.
_OWN = re.compile(r"[\w-]+_(questions|annotations)\.json|images\.json|report\.(json|png)|images/.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set as records.

    Attributes:
        name: name of the reader, for example "easy-vqa".
        source: the data that it was read from. The result may be overwritten if the same source is prepared again.
        splits: split name to records.
        metric: the name of the metric that judges it.
        images: image id, as text, to an image file, or to an object that opens like one (an image of an array); empty
            if there are only ids.
        copy_images: whether the images are copied into the prepared folder; those in an archive have to be.
        skipped: each thing that was left out.
        copies: image id to the id that stands for all byte-identical copies; None if the reader did not look for them.
        notes: further remarks for people.
    """

    name: str
    source: str
    splits: Mapping[str, Sequence[Record]]
    metric: str
    images: Mapping[str, Path | zipfile.Path] = field(default_factory=dict)
    copy_images: bool = False
    skipped: Sequence[LeftOut] = ()
    copies: Mapping[str, str] | None = None
    notes: Sequence[str] = ()


def write_dataset(
    dataset: Dataset,
    out: str | Path,
    *,
    has_features: Callable[[str], bool] | None = None,
    near_copies: bool | None = None,
    draw: Callable[[Mapping[str, Any], str, Path], None] | None = None,
) -> dict[str, Any]:
    """Write the folder of a data set and return its report.

    All files are made in a temporary folder beside `out` and then moved there: after an error nothing has changed.
    While the files of an existing folder are replaced, a marker is in it, so that a folder of mixed files is refused.

    Args:
        dataset: the data set.
        out: the folder to write.
        has_features: whether there are features of an image, by its id; the report then counts the images without.
        near_copies: look for images that are nearly equal; None looks if there are at most `MAX_NEAR_COPIES` images.
        draw: draws the report, given the report, the name of the data set and the file to write; None draws nothing.

    Raises:
        ValueError: `out` holds something else or a link, the name of a split or the id of an image to copy cannot be
            part of a file name, or an archive of images is damaged.
        OSError: a file cannot be read or written.
    """
    folder = Path(out).resolve()
    for split in dataset.splits:
        if not _SPLIT_NAME.fullmatch(split):
            raise ValueError(f"split {split!r}: its name becomes part of a file name; use letters, digits, _ and -")
    stale = _files_of_last_time(dataset, folder)
    with partial_folder(folder) as partial:
        for split, records in dataset.splits.items():
            write_vqa(partial, split, records, info={"dataset": dataset.name, "split": split, "metric": dataset.metric})
        if dataset.images:
            write_json(partial / "images.json", _place_images(dataset, partial, folder), indent=1)
        report = _report(dataset, has_features, near_copies)
        if draw is not None:
            try:
                draw(report, dataset.name, partial / "report.png")
            except ModuleNotFoundError as error:
                report["notes"].append(f"no report.png: {error}")
        files = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
        report["files"] = [*files, REPORT]
        write_json(partial / REPORT, report, indent=1)
        _move(partial, folder, report["files"], stale)
    return report


def _report(dataset: Dataset, has_features: Callable[[str], bool] | None, near_copies: bool | None) -> dict[str, Any]:
    copies = find_copies(dataset.images) if dataset.copies is None else dataset.copies
    notes = [*dataset.notes]
    near: dict[str, str] = {}
    if near_copies or (near_copies is None and len(dataset.images) <= MAX_NEAR_COPIES):
        near, unreadable = _near_copies(dataset, copies)
        if unreadable:
            notes.append(f"images that cannot be opened: {len(unreadable)}, for example {unreadable[0]!r}")
    elif near_copies is None:
        notes.append(f"near copies among {len(dataset.images)} images were not looked for; --near-copies does it")
    report = build_report(dataset.splits, dataset.metric, has_features, copies=copies, near_copies=near)
    return {
        "prepared": dataset.name,
        "source": dataset.source,
        "metric": dataset.metric,
        **report,
        "notes": notes,
        "skipped": [str(item) for item in dataset.skipped],
        "skipped_reasons": count_reasons(dataset.skipped),
    }


def _near_copies(dataset: Dataset, copies: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Images of other splits that look like an image of train, exact copies aside; and the unreadable images."""
    used = {name: {str(record.image_id) for record in records} for name, records in dataset.splits.items()}
    train = {image: dataset.images[image] for image in sorted(used.get("train", ())) if image in dataset.images}
    others = sorted(set().union(*(images for name, images in used.items() if name != "train")) - set(train))
    known = {copies.get(image, image) for image in train}
    rest = {image: dataset.images[image] for image in others if image in dataset.images}
    return find_near_copies(
        train, {image: file for image, file in rest.items() if copies.get(image, image) not in known}
    )


def _files_of_last_time(dataset: Dataset, folder: Path) -> list[str]:
    """The files that an earlier run on the same source left in `folder`.

    Raises:
        ValueError: the folder holds other data, or a link where files are written.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    last = read_json(folder / REPORT) if (folder / REPORT).is_file() else None
    if not isinstance(last, dict) or not isinstance(last.get("files"), list) or "prepared" not in last:
        raise ValueError(f"{folder} exists and was not made by coattn prepare; give another folder, or remove it")
    if (last["prepared"], last.get("source")) != (dataset.name, dataset.source):
        raise ValueError(
            f"{folder} holds {last['prepared']} prepared from {last.get('source')}, not {dataset.name} from "
            f"{dataset.source}; give another folder, or remove it"
        )
    stale = [file for file in map(str, last["files"]) if _OWN.fullmatch(file) and ".." not in Path(file).parts]
    for file in ("images", *stale):
        for path in (folder / file, *(folder / file).parents):
            if path != folder and path.is_relative_to(folder) and path.is_symlink():
                raise ValueError(f"{path} is a link; prepare does not write or remove files through links; remove it")
    return stale


def _place_images(dataset: Dataset, partial: Path, folder: Path) -> dict[str, str]:
    """Copy the images that are copied, and return the place of each image, relative to `folder`.

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
            check_regular(path)
            with naming_archive(path), path.open("rb") as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        else:
            absolute = Path(os.path.abspath(str(path)))
            near = absolute.is_relative_to(folder.parent)
            places[image_id] = Path(os.path.relpath(absolute, folder) if near else absolute).as_posix()
    return places


def _move(partial: Path, folder: Path, files: Sequence[str], stale: Sequence[str]) -> None:
    """Move the new files into `folder`. A power cut or a kill leaves the old folder, the new one, or a marked one."""
    _sync_all()
    if not folder.exists() or not any(folder.iterdir()):
        partial.rename(folder)
        sync(folder.parent)
        return
    marker = folder / UNFINISHED
    marker.touch()
    sync(folder)
    for file in files:  # the report is the last one
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (partial / file).replace(folder / file)
    for file in set(stale) - set(files):
        (folder / file).unlink(missing_ok=True)
    _sync_all()
    marker.unlink()


def _sync_all() -> None:
    """Have all files written to the disk by one call: to sync each of a hundred thousand images would take minutes."""
    if hasattr(os, "sync"):  # not on Windows
        os.sync()
