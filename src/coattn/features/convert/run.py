"""Other people's feature files to a feature store: a folder of shards that survives kills, like that of `extract`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coattn._internal.files import remove_leftovers
from coattn._internal.progress import Advance, tell
from coattn._internal.progress import progress as show_progress
from coattn.features.convert.formats import FeatureSource, ImageRegions, SourceImage, open_source
from coattn.features.convert.formats.base import id_rule
from coattn.features.store.layout import DETECTION_DTYPES, Part, Skipped, feature_dtype
from coattn.features.store.manifest import Manifest, Unit, open_folder
from coattn.features.store.reader import read_shard
from coattn.features.store.writer import StoreWriter

_UNIT_IMAGES = 256
_UNIT_BYTES = 128 * 2**20
_MOST_REGIONS = 100  # of a detector; grids have their number in the first image
_LONGEST_SIDE, _LARGEST_LABEL = 10**6, 2**31
_ROUNDING = 1.0  # pixels by which a box may leave its image and is cut without more ado


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        done: images now in the shards.
        found_done: those of them that were there before.
        skipped: records that could not be used, and why.
        repeated: records left out because an equal one of the same image came before.
        cut_boxes: boxes that left their image and were cut to it.
    """

    done: int
    found_done: int
    skipped: list[Skipped]
    repeated: int
    cut_boxes: int


class _Item(NamedTuple):
    source: FeatureSource
    entry: SourceImage


def convert(
    kind: str,
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    dtype: str = "float16",
    ids: str = "auto",
    extractor: str | None = None,
    clip_boxes: bool = False,
    images_per_unit: int | None = None,
    progress: bool = True,
) -> Conversion:
    """Convert files or folders of the format `kind` into the folder `out`, or finish what an earlier call began.

    A record that cannot be used (cut off, damaged, NaN, another width than the first, boxes outside of the image) is
    left out, named, and listed in the store; the others are converted. Nothing is written before all records are
    listed and all repeated images compared. The features' values are those of the source, rounded to `dtype`.

    Args:
        kind: a name of `coattn.features.convert.formats.FORMATS`.
        sources: files or folders, in the order in which their images are to come.
        out: folder; made if it does not exist.
        dtype: of the stored features: float16 (default), float32, or int8 with a scale for each row, which moves no
            value by more than 1/253 of the largest of its row, if that is above 0.01. Measured on ten images of
            bottom-up attention, values from 0 to 35: at most 0.0039 of that largest value, 0.14 in all, and 0.023 on
            average; the error's norm is 2.1 % of the row's, at most 3.4 % (float16: 0.02 %).
        ids: how names give image ids, see `coattn.features.convert.formats.base.id_rule`.
        extractor: name of what made the features, where the files do not show it; by default what the format implies.
        clip_boxes: cut boxes at the border of the image however far they reach beyond. Otherwise up to one pixel is
            cut, as rounding, and more makes the record unusable.
        images_per_unit: images of a shard; default: 256, less where that would be more than 128 MB of features.
        progress: show progress bars on stderr.

    Raises:
        ValueError: not this format; no usable record; an image comes twice with different features; `out` holds
            something else, or was begun from other files or settings; unknown dtype.
        OSError: a file cannot be read or written.
    """
    folder = Path(out)
    feature_dtype(dtype)
    id_of = id_rule(ids)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_source(kind, Path(path), progress=progress))) for path in sources]
        items, dropped, repeated = _plan(opened, id_of)
        dim, num_regions = _first_shape(items)
        record = _record(opened, extractor)
        if images_per_unit is None:
            image_bytes = dim * feature_dtype(dtype).itemsize * max(_MOST_REGIONS, num_regions)
            images_per_unit = max(1, min(_UNIT_IMAGES, _UNIT_BYTES // image_bytes))
        manifest = Manifest(record, dim, dtype, False, _units(items, images_per_unit))
        open_folder(folder, manifest)
        for entry in dropped:
            _tell(entry)
        with show_progress(folder.name, len(items), shown=progress) as advance:
            shards = [_shard(folder, manifest, unit, items, clip_boxes, advance) for unit in manifest.units]
    return _summary(shards, dropped, repeated)


def _plan(sources: Sequence[FeatureSource], id_of: Callable[[str], str]) -> tuple[dict[str, _Item], list[Skipped], int]:
    """Each image once, the records left out because another of the image is usable, and how many came again."""
    found: dict[str, list[_Item]] = {}
    dropped: list[Skipped] = []
    for source in sources:
        if not source.entries:
            raise ValueError(f"{source.path}: holds no images")
        for entry in source.entries:
            try:
                found.setdefault(id_of(entry.name), []).append(_Item(source, entry))
            except ValueError as error:
                dropped.append(Skipped(entry.name, entry.where, str(error)))
    repeated = 0
    plan = {}
    for name, items in found.items():
        plan[name] = items[0]
        if len(items) > 1:
            plan[name], unusable = _choose(name, items)
            dropped += unusable
            repeated += len(items) - 1 - len(unusable)
    if not plan:
        raise ValueError(
            f"{dropped[0].path}: {dropped[0].reason}; {len(dropped)} records, and none of them can be used"
        )
    return plan, dropped, repeated


def _choose(name: str, items: Sequence[_Item]) -> tuple[_Item, list[Skipped]]:
    """The first usable of several records of an image, and the unusable ones.

    Raises:
        ValueError: two of them differ.
    """
    usable: list[tuple[_Item, ImageRegions]] = []
    unusable = []
    for item in items:
        try:
            usable.append((item, _read(*item)))
        except ValueError as error:
            unusable.append((item, Skipped(name, item.entry.where, _reason(error, item.entry))))
    if not usable:
        return items[0], [entry for _, entry in unusable[1:]]
    first, regions = usable[0]
    for other, again in usable[1:]:
        if not (np.array_equal(regions.features, again.features) and np.array_equal(regions.boxes, again.boxes)):
            raise ValueError(
                f"{other.entry.where}: image {name!r} comes again, with other features than in {first.entry.where}; "
                "keep one of them, or convert the files into stores of their own"
            )
    return first, [entry for _, entry in unusable]


def _first_shape(items: Mapping[str, _Item]) -> tuple[int, int]:
    """Width of the features and number of regions of the first usable image that has regions."""
    reasons = []
    for item in items.values():
        try:
            features = _read(*item).features
        except ValueError as error:
            reasons.append(f"{item.entry.where}: {_reason(error, item.entry)}")
            continue
        if features.size:
            return features.shape[1], features.shape[0]
    if not reasons:
        raise ValueError(f"{next(iter(items.values())).source.path}: no image has any regions")
    raise ValueError(f"{reasons[0]}; {len(reasons)} records, and none of them can be used")


def _record(sources: Sequence[FeatureSource], extractor: str | None) -> dict[str, Any]:
    """What made the features."""
    names = {source.extractor: source.path for source in sources}
    if extractor is None and len(names) > 1:
        (first, one), (second, other), *_ = names.items()
        raise ValueError(
            f"{one} holds features of {first}, {other} of {second}; convert them into stores of their own, or say what "
            "made both (--extractor NAME)"
        )
    # Without weights: what a converted checkpoint expects is known by its name alone.
    return {"name": extractor or next(iter(names)), "settings": {}, "weights": None, "versions": {}}


def _units(items: Mapping[str, _Item], images_per_unit: int) -> list[Unit]:
    names = list(items)
    return [
        Unit(f"shard-{i:05}.h5", {name: items[name].entry.short for name in names[at : at + images_per_unit]})
        for i, at in enumerate(range(0, len(names), images_per_unit))
    ]


def _shard(
    folder: Path, manifest: Manifest, unit: Unit, items: Mapping[str, _Item], clip_boxes: bool, advance: Advance
) -> tuple[Part, bool]:
    """The shard of a unit, and whether it was there before."""
    fingerprint = _fingerprint([items[name] for name in unit.images])
    part = _finished(folder, manifest, unit, fingerprint)
    if part is None:
        _write_shard(folder / unit.shard, manifest, unit, items, fingerprint, clip_boxes, advance)
        return read_shard(folder, manifest, unit), False
    advance(len(unit.images))
    for entry in part.skipped:
        _tell(entry)
    return part, True


def _summary(shards: Sequence[tuple[Part, bool]], dropped: Sequence[Skipped], repeated: int) -> Conversion:
    return Conversion(
        done=sum(len(part.image_ids) for part, _ in shards),
        found_done=sum(len(part.image_ids) for part, found in shards if found),
        skipped=[*dropped, *(entry for part, _ in shards for entry in part.skipped)],
        repeated=repeated,
        cut_boxes=sum(int(part.record["versions"].get("cut_boxes", 0)) for part, _ in shards),
    )


def _write_shard(
    path: Path,
    manifest: Manifest,
    unit: Unit,
    items: Mapping[str, _Item],
    fingerprint: str,
    clip_boxes: bool,
    advance: Advance,
) -> None:
    remove_leftovers(path)
    cut = 0
    with StoreWriter(path, dim=manifest.dim, dtype=manifest.dtype, record=manifest.extractor) as writer:
        for name in unit.images:
            source, entry = items[name]
            advance(1)
            try:
                cut += _add(writer, name, _read(source, entry), clip_boxes=clip_boxes)
            except ValueError as error:
                skipped = Skipped(name, entry.where, _reason(error, entry))
                writer.skip(*skipped)
                _tell(skipped)
        writer.sources = fingerprint
        writer.record = {**manifest.extractor, "versions": {"sources": _origins(items, unit), "cut_boxes": cut}}


def _read(source: FeatureSource, entry: SourceImage) -> ImageRegions:
    """Read an image; whatever goes wrong becomes an error of the record, unlike an error of writing.

    Raises:
        ValueError: the record cannot be used.
    """
    try:
        return source.read(entry)
    except (ValueError, MemoryError):
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except Exception as error:  # other people's arrays and pickles may hold anything
        raise ValueError(f"cannot be read ({type(error).__name__}: {error!s:.120})") from None


def _add(writer: StoreWriter, name: str, regions: ImageRegions, *, clip_boxes: bool) -> int:
    """Append an image; returns how many of its boxes were cut.

    Raises:
        ValueError: its arrays do not fit together, or to the store.
    """
    features, boxes, size, *detections = regions
    if not len(features):
        features = features.reshape(0, writer.dim)
    if features.shape[1] != writer.dim:
        raise ValueError(f"features have width {features.shape[1]}, those before it have {writer.dim}")
    if len(boxes) != len(features):
        raise ValueError(f"{len(features)} rows of features, but {len(boxes)} boxes")
    if boxes.shape[1] != 4:
        raise ValueError(f"its boxes are rows of {boxes.shape[1]} numbers, not 4")
    if not np.isfinite(features).all():
        number = int((~np.isfinite(features)).sum())
        raise ValueError(f"{number} of {features.size} values of its features are NaN or infinite")
    if max(size) > _LONGEST_SIDE:
        raise ValueError(f"its image has {size[0]} x {size[1]} pixels")
    for kind, values in zip(DETECTION_DTYPES, detections, strict=True):
        if values is not None and not (values.dtype.kind in "iuf" and (np.abs(values) < _LARGEST_LABEL).all()):
            raise ValueError(f"its {kind} are not numbers, or impossibly large")
    boxes, cut = _shares(boxes, size, clip=clip_boxes)
    writer.add(name, features, boxes, size, *detections)
    return cut


def _shares(boxes: np.ndarray, size: tuple[int, int], *, clip: bool) -> tuple[np.ndarray, int]:
    """Boxes in [0, 1] of the image, and how many were cut at its border.

    Raises:
        ValueError: a box that is none, or that leaves the image.
    """
    scale = np.array([*size, *size], np.float32) if any(size) else np.ones(4, np.float32)
    width, height = size
    for index in np.flatnonzero(~np.isfinite(boxes).all(axis=1)):
        raise ValueError(f"box {index} is {_show(boxes[index])}")
    for index in np.flatnonzero((boxes[:, :2] > boxes[:, 2:]).any(axis=1)):
        raise ValueError(f"box {index} is inverted: {_show(boxes[index])}, not x1 <= x2 and y1 <= y2")
    beyond = np.maximum(-boxes, boxes - scale).max(axis=1, initial=0)
    for index in np.flatnonzero(beyond > (_ROUNDING if any(size) else 0)) if not clip else ():
        of = f"of {width} x {height} pixels " if any(size) else ""
        raise ValueError(
            f"box {index}, {_show(boxes[index])}, lies outside of its image {of}by {beyond[index]:g} (are width and "
            "height swapped?); --clip-boxes cuts such boxes"
        )
    return np.clip(boxes / scale, 0, 1), int((beyond > 0).sum())


def _show(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _origins(items: Mapping[str, _Item], unit: Unit) -> list[dict[str, Any]]:
    return [
        origin
        for source, entries in _by_source([items[name] for name in unit.images])
        for origin in source.origins(entries)
    ]


def _by_source(items: Sequence[_Item]) -> list[tuple[FeatureSource, list[SourceImage]]]:
    found: dict[int, tuple[FeatureSource, list[SourceImage]]] = {}
    for source, entry in items:
        found.setdefault(id(source), (source, []))[1].append(entry)
    return list(found.values())


def _fingerprint(items: Sequence[_Item]) -> str:
    return " ".join(source.fingerprint(entries) for source, entries in _by_source(items))


def _reason(error: Exception, entry: SourceImage) -> str:
    """What is wrong with a record, without the file's name, which stands before it."""
    text = str(error)
    for place in (entry.where, *map(str, entry.files)):
        text = text.removeprefix(f"{place}: ")
    return text


def _tell(entry: Skipped) -> None:
    tell(f"skipped {entry.path}, image {entry.image_id!r}: {entry.reason}")


def _finished(folder: Path, manifest: Manifest, unit: Unit, fingerprint: str) -> Part | None:
    """The unit's shard, if it is there and sound; else None.

    Raises:
        ValueError: the source has changed since.
    """
    if not (folder / unit.shard).exists():
        return None
    try:
        part = read_shard(folder, manifest, unit)
    except ValueError:
        return None  # damaged: it is ours to make again
    if part.sources != fingerprint:
        raise ValueError(
            f"{part.path}: its source has changed since it was converted; delete this folder, or give another one"
        )
    return part
