"""Convert feature files of other projects into a feature store: a resumable folder of shards, as `extract` makes."""

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
from coattn.features.convert.formats import FeatureSource, SourceImage, open_source
from coattn.features.convert.formats.base import id_rule
from coattn.features.convert.records import ConvertedImage, read_record
from coattn.features.store.catalog import INDEX
from coattn.features.store.layout import FileContents, Skipped, feature_dtype
from coattn.features.store.manifest import Manifest, Unit, open_folder, plan_units
from coattn.features.store.reader import index_folder, read_shard, sound_shard
from coattn.features.store.writer import StoreWriter

_MOST_REGIONS = 100  # of a detector; the regions of a grid are counted in the first image


@dataclass(frozen=True)
class Conversion:
    """Report of `convert`.

    Attributes:
        done: images now in the shards.
        found_done: images among them that an earlier call had converted.
        skipped: records that could not be used, and why.
        repeated: records left out because an equal one of the same image came before.
        cut_boxes: boxes that left their image and were cut at its border.
    """

    done: int
    found_done: int
    skipped: list[Skipped]
    repeated: int
    cut_boxes: int


class _Item(NamedTuple):
    source: FeatureSource
    entry: SourceImage


class _Shape(NamedTuple):
    """Properties that all records of a store share, as the first usable record has them."""

    dim: int
    num_regions: int
    has_boxes: bool


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
    listed and all repeated images compared. The features' values are those of the source, rounded to `dtype`. Boxes
    and image sizes that a format does not keep stay unknown.

    Args:
        kind: a name of `coattn.features.convert.formats.FORMATS`.
        sources: files or folders, in the order of their images in the store.
        out: folder; made if it does not exist.
        dtype: type of the stored features: float16 (default), float32, or int8 with a scale for each row, which moves
            no value by more than 1/253 of the largest of its row, if that is above 0.01. Measured on ten images of
            bottom-up attention, values from 0 to 35: at most 0.0039 of that largest value, 0.14 in all, and 0.023 on
            average; the error's norm is 2.1 % of the row's, at most 3.4 % (float16: 0.02 %).
        ids: rule that makes image ids from names, see `coattn.features.convert.formats.base.id_rule`.
        extractor: name of the extractor of the features, where the files do not show it; by default the one that the
            format implies.
        clip_boxes: cut boxes at the border of the image however far they leave it. By default up to one pixel is cut,
            as rounding, and a larger excess makes the record unusable.
        images_per_unit: images of a shard; default: 256, less where that would be more than 128 MB of features.
        progress: show progress on stderr.

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
        items, dropped, repeated = _plan(opened, id_of, clip_boxes)
        shape = _first_shape(items, clip_boxes)
        record = _extractor_record(opened, extractor)
        image_bytes = shape.dim * feature_dtype(dtype).itemsize * max(_MOST_REGIONS, shape.num_regions)
        names = {name: item.entry.short for name, item in items.items()}
        units = plan_units(names, image_bytes=image_bytes, images_per_unit=images_per_unit)
        manifest = Manifest(record, shape.dim, dtype, False, units)
        open_folder(folder, manifest)
        remove_leftovers(folder / "*")
        for entry in dropped:
            _tell(entry)
        parts, found_done = [], 0
        with show_progress(folder.name, len(items), shown=progress) as advance:
            for unit in units:
                fingerprint = _fingerprint([items[name] for name in unit.images])
                part = _finished(folder, manifest, unit, fingerprint)
                if part is None:
                    (folder / INDEX).unlink(missing_ok=True)  # of the shards that are made again
                    _write_shard(folder / unit.shard, manifest, unit, items, fingerprint, shape, clip_boxes, advance)
                    part = read_shard(folder, manifest, unit)
                else:
                    found_done += len(part.image_ids)
                    advance(len(unit.images))
                    for entry in part.skipped:
                        _tell(entry)
                parts.append(part)
        index_folder(folder, manifest)
    return Conversion(
        done=sum(len(part.image_ids) for part in parts),
        found_done=found_done,
        skipped=[*dropped, *(entry for part in parts for entry in part.skipped)],
        repeated=repeated,
        cut_boxes=sum(int(part.record["versions"].get("cut_boxes", 0)) for part in parts),
    )


def _plan(
    sources: Sequence[FeatureSource], id_of: Callable[[str], str], clip_boxes: bool
) -> tuple[dict[str, _Item], list[Skipped], int]:
    """Each image once, the records left out because another record of the image is usable, and how many repeat."""
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
            plan[name], unusable = _choose(name, items, clip_boxes)
            dropped += unusable
            repeated += len(items) - 1 - len(unusable)
    if not plan:
        raise ValueError(
            f"{dropped[0].path}: {dropped[0].reason}; {len(dropped)} records, and none of them can be used"
        )
    return plan, dropped, repeated


def _choose(name: str, items: Sequence[_Item], clip_boxes: bool) -> tuple[_Item, list[Skipped]]:
    """The first usable of several records of an image, and the unusable ones.

    Raises:
        ValueError: two of them differ.
    """
    usable: list[tuple[_Item, ConvertedImage]] = []
    unusable = []
    for item in items:
        try:
            usable.append((item, read_record(*item, clip_boxes=clip_boxes)))
        except ValueError as error:
            unusable.append(Skipped(name, item.entry.where, str(error)))
    if not usable:
        return items[0], unusable[1:]
    first, record = usable[0]
    for other, again in usable[1:]:
        pairs = ((record.regions.features, again.regions.features), (record.regions.boxes, again.regions.boxes))
        if not all(np.array_equal(one, two) for one, two in pairs):  # type: ignore[arg-type]
            raise ValueError(
                f"{other.entry.where}: image {name!r} comes again, with other features than in {first.entry.where}; "
                "keep one of them, or convert the files into separate stores"
            )
    return first, unusable


def _first_shape(items: Mapping[str, _Item], clip_boxes: bool) -> _Shape:
    """The shape of the first usable image that has regions."""
    reasons = []
    for item in items.values():
        try:
            regions = read_record(*item, clip_boxes=clip_boxes).regions
        except ValueError as error:
            reasons.append(f"{item.entry.where}: {error}")
            continue
        if regions.features.size:
            return _Shape(regions.features.shape[1], len(regions.features), regions.boxes is not None)
    if not reasons:
        raise ValueError(f"{next(iter(items.values())).source.path}: no image has any regions")
    raise ValueError(f"{reasons[0]}; {len(reasons)} records, and none of them can be used")


def _extractor_record(sources: Sequence[FeatureSource], extractor: str | None) -> dict[str, Any]:
    names = {source.extractor: source.path for source in sources}
    if extractor is None and len(names) > 1:
        (first, one), (second, other), *_ = names.items()
        raise ValueError(
            f"{one} holds features of {first}, {other} of {second}; convert them into separate stores, or name the "
            "extractor of both (--extractor NAME)"
        )
    # Without weights: a converted checkpoint names its extractor only.
    return {"name": extractor or next(iter(names)), "settings": {}, "weights": None, "versions": {}}


def _write_shard(
    path: Path,
    manifest: Manifest,
    unit: Unit,
    items: Mapping[str, _Item],
    fingerprint: str,
    shape: _Shape,
    clip_boxes: bool,
    advance: Advance,
) -> None:
    cut = 0
    with StoreWriter(path, dim=manifest.dim, dtype=manifest.dtype, record=manifest.extractor) as writer:
        for name in unit.images:
            advance(1)
            try:
                record = read_record(*items[name], clip_boxes=clip_boxes)
                _add(writer, name, record, shape)
                cut += record.cut_boxes
            except ValueError as error:
                reason = str(error).removeprefix(f"{path}: ").removeprefix(f"image {name!r} ")
                skipped = Skipped(name, items[name].entry.where, reason)
                writer.skip(*skipped)
                _tell(skipped)
        writer.sources = fingerprint
        origins = [
            origin
            for source, entries in _by_source([items[name] for name in unit.images])
            for origin in source.origins(entries)
        ]
        writer.record = {**manifest.extractor, "versions": {"sources": origins, "cut_boxes": cut}}


def _add(writer: StoreWriter, name: str, record: ConvertedImage, shape: _Shape) -> None:
    """Append an image.

    Raises:
        ValueError: it does not fit to the images before it.
    """
    features, boxes, size, *detections = record.regions
    if not len(features):
        features = features.reshape(0, shape.dim)
    if features.shape[1] != shape.dim:
        raise ValueError(f"features have width {features.shape[1]}, those before it have {shape.dim}")
    if (boxes is not None) != shape.has_boxes:
        raise ValueError(
            "has no boxes, images before it have" if boxes is None else "has boxes, images before it do not"
        )
    writer.add(name, features, boxes, size, *detections)


def _by_source(items: Sequence[_Item]) -> list[tuple[FeatureSource, list[SourceImage]]]:
    found: dict[int, tuple[FeatureSource, list[SourceImage]]] = {}
    for source, entry in items:
        found.setdefault(id(source), (source, []))[1].append(entry)
    return list(found.values())


def _fingerprint(items: Sequence[_Item]) -> str:
    return " ".join(source.fingerprint(entries) for source, entries in _by_source(items))


def _tell(entry: Skipped) -> None:
    tell(f"skipped {entry.path}, image {entry.image_id!r}: {entry.reason}")


def _finished(folder: Path, manifest: Manifest, unit: Unit, fingerprint: str) -> FileContents | None:
    """The unit's shard, if it exists and is sound; else None.

    Raises:
        ValueError: the source has changed since.
    """
    part = sound_shard(folder, manifest, unit)
    if part is not None and part.sources != fingerprint:
        raise ValueError(
            f"{folder / unit.shard}: its source has changed since it was converted; delete this folder, or give "
            "another one"
        )
    return part
