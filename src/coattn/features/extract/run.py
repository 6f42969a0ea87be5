"""Run an extractor over many images, into a resumable folder of shards that several processes may share."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from coattn._internal.files import atomic_path, remove_leftovers
from coattn._internal.progress import Advance, tell
from coattn._internal.progress import progress as show_progress
from coattn.features.extract.extractors.base import Extractor, Regions, reading_of
from coattn.features.extract.extractors.build import WEIGHTS, build_extractor
from coattn.features.extract.images import DARK, find_images, image_size, load_image
from coattn.features.extract.pipeline import computing, in_background, loading
from coattn.features.extract.processes import num_cores
from coattn.features.store.catalog import INDEX
from coattn.features.store.layout import FileContents, Skipped, feature_dtype
from coattn.features.store.manifest import FLIP, MANIFEST, Manifest, Unit, open_folder, plan_units
from coattn.features.store.reader import asset_path, index_folder, sound_shard
from coattn.features.store.writer import StoreWriter

__all__ = ["Extractor", "Regions", "Report", "build_extractor", "extract", "find_images", "load_image"]

_IMAGES, _CACHED_IMAGES = 32, 4  # at once
_WAITING_BATCHES = 8  # described and not yet written, before the extractor has to wait


@dataclass(frozen=True)
class Report:
    """Report of `extract`.

    Attributes:
        done: images now in the shards.
        found_done: images among them that an earlier call had extracted.
        skipped: images that could not be read.
        dark: 16-bit images that came out nearly black because they use a small part of their range.
    """

    done: int
    found_done: int
    skipped: list[Skipped]
    dark: int = 0


def extract(
    images: Mapping[str, Path],
    out: str | os.PathLike[str],
    extractor: Extractor,
    *,
    dtype: str = "float16",
    flips: bool = False,
    batch_size: int | None = None,
    num_workers: int | None = None,
    images_per_unit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> Report:
    """Extract the regions of `images` (id to path) into the folder `out`, or finish what an earlier call began.

    The images are divided into units. Each unit becomes one shard, which is complete or absent. A further call with the
    same arguments makes only the missing shards, and all files equal those of an uninterrupted call, byte for byte.
    (With another batch size, number of threads or device they agree to rounding.) Images that cannot be read are left
    out, and tried again by the next call. Several processes may share the work without communication: each does every
    `world_size`-th unit.

    Reading, computing and writing overlap. Memory holds the images and features of a few batches, and the features of
    two shards: one is being filled, one is being written. A kill loses at most these two.

    Args:
        images: image id to path.
        out: folder; made if it does not exist.
        extractor: the extractor.
        dtype: type of the stored features: float16, float32 or int8.
        flips: store each image a second time, mirrored, under its id followed by `#flip`.
        batch_size: images per call of the extractor; None: 32, or 4 for a network on a CPU, which is up to twice as
            fast because intermediate results stay in the CPU's caches.
        num_workers: threads that read and resize images while the extractor computes; None: one for each core.
        images_per_unit: default: 256, less where that would be more than 128 MB of features.
        rank: number of this process, from 0.
        world_size: number of processes.
        progress: show progress on stderr.

    Raises:
        ValueError: `out` holds something else, or features of other settings or images; unknown dtype; the folder was
            removed or changed meanwhile.
    """
    folder = Path(out)
    paths = {name: Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() for name, path in images.items()}
    image_bytes = extractor.num_regions * extractor.dim * feature_dtype(dtype).itemsize * (2 if flips else 1)
    units = plan_units(paths, image_bytes=image_bytes, images_per_unit=images_per_unit)
    manifest = Manifest(extractor.record, extractor.dim, dtype, flips, units)
    open_folder(folder, manifest)
    remove_leftovers(folder / "*")
    if rank == 0 and extractor.weights is not None and not asset_path(folder, WEIGHTS).exists():
        with atomic_path(asset_path(folder, WEIGHTS)) as file:
            save_file(dict(extractor.weights), file)

    units = units[rank::world_size]
    there = {unit.shard: part for unit in units if (part := _finished(folder, manifest, unit, images)) is not None}
    skipped = [entry for part in there.values() for entry in part.skipped]
    todo = [unit for unit in units if unit.shard not in there]
    if todo:
        (folder / INDEX).unlink(missing_ok=True)  # of the shards that are made again
    total = sum(len(unit.images) for unit in units)
    missing = sum(len(unit.images) for unit in todo)
    notes = _Notes()
    name = folder.name if world_size == 1 else f"{folder.name}, process {rank} of {world_size}"
    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),  # `notes` names the file
        show_progress(name, total, done=total - missing, shown=progress) as advance,
    ):
        skipped += _make_shards(
            todo,
            images,
            folder,
            extractor,
            dtype=dtype,
            flips=flips,
            batch_size=batch_size or images_at_once(extractor),
            num_workers=num_workers or num_cores(),
            notes=notes,
            advance=advance,
        )
    if missing_files := [name for name in (MANIFEST, *(unit.shard for unit in units)) if not (folder / name).exists()]:
        raise ValueError(
            f"{folder}: was removed or changed while it was written ({len(missing_files)} files are missing, the first "
            f"is {missing_files[0]}); run the same command again"
        )
    index_folder(folder, manifest)
    found = sum(len(part.image_ids) for part in there.values()) // (2 if flips else 1)
    return Report(done=total - len(skipped), found_done=found, skipped=skipped, dark=notes.dark)


def images_at_once(extractor: Extractor) -> int:
    """Images per call with which an extractor is fast: few where intermediate results should stay in CPU caches."""
    return _CACHED_IMAGES if extractor.parallel else _IMAGES


def _make_shards(
    units: Sequence[Unit],
    images: Mapping[str, Path],
    folder: Path,
    extractor: Extractor,
    *,
    dtype: str,
    flips: bool,
    batch_size: int,
    num_workers: int,
    notes: _Notes,
    advance: Advance,
) -> list[Skipped]:
    """Extract units, one after another; return the images that could not be read."""
    skipped: list[Skipped] = []
    paths = [images[image_id] for unit in units for image_id in unit.images]
    load, describe = partial(_load, extractor, notes), partial(_describe, extractor, flips=flips)
    with (
        loading(load, paths, num_workers=num_workers, ahead=2 * batch_size) as loaded,
        computing(describe, _batches(units, loaded, batch_size), parallel=extractor.parallel) as described,
        in_background(ahead=_WAITING_BATCHES) as write,
    ):
        written: Future[None] | None = None
        for unit in units:
            with ExitStack() as unfinished:
                writer = StoreWriter(folder / unit.shard, dim=extractor.dim, dtype=dtype, record=extractor.record)
                unfinished.enter_context(writer)
                for batch in islice(described, -(-len(unit.images) // batch_size)):
                    for image_id, _, reason in batch.skipped:
                        tell(f"skipped image {image_id!r} ({images[image_id]}): {reason}")
                    skipped += batch.skipped
                    write(partial(_add, writer, batch))
                    advance(batch.number)
                if written is not None:
                    written.result()  # at most two shards are in memory, this one and the one before it
                writer.sources = _fingerprint(unit, images, {entry.image_id for entry in skipped})
                written = write(unfinished.pop_all().close)
    return skipped


class _Notes:
    """Writes remarks on images to stderr; of dark 16-bit images only the first, and counts them."""

    def __init__(self) -> None:
        self.dark = 0
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        is_dark = DARK in text
        with self._lock:
            self.dark += is_dark
            if not is_dark or self.dark == 1:
                tell(text)


class _Loaded(NamedTuple):
    """An image as the extractor takes it, or the reason why it could not be read."""

    path: Path
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    reason: str = ""


def _load(extractor: Extractor, notes: _Notes, path: Path) -> _Loaded:
    reading = reading_of(extractor)
    try:
        image = load_image(path, **reading, tell=notes)
        size = image_size(path) if "at_least" in reading else image.size
    except OSError as error:
        return _Loaded(path, None, reason=error.strerror or str(error))
    except ValueError as error:
        return _Loaded(path, None, reason=str(error).removeprefix(f"{path}: "))
    return _Loaded(path, extractor.prepare(image), size)


_Item = tuple[tuple[str, str], _Loaded]  # ((image id, path in the manifest), loaded image)


def _batches(units: Sequence[Unit], loaded: Iterator[_Loaded], size: int) -> Iterator[list[_Item]]:
    """Batches of at most `size` images, each of one unit. They do not depend on the number of processes."""
    for unit in units:
        # The images come first in zip, so that it takes nothing from `loaded` that belongs to the next unit.
        items = zip(unit.images.items(), loaded, strict=False)
        while batch := list(islice(items, size)):
            yield batch


class _Described(NamedTuple):
    """A described batch: id, regions, width and height of each image, and the images that could not be read."""

    images: list[tuple[str, Regions, tuple[int, int]]]
    skipped: list[Skipped]
    number: int


def _describe(extractor: Extractor, batch: list[_Item], *, flips: bool) -> _Described:
    """Describe the images that could be read, and with `flips` also their mirror images."""
    skipped = [Skipped(image_id, path, loaded.reason) for (image_id, path), loaded in batch if loaded.pixels is None]
    good = [(image_id, loaded.pixels, loaded.size) for (image_id, _), loaded in batch if loaded.pixels is not None]
    pixels = [pixels for _, pixels, _ in good]
    described = [extractor.describe(pixels)]
    if flips:
        described.append(extractor.describe([np.ascontiguousarray(image[:, ::-1]) for image in pixels]))
    images = [
        (image_id + suffix, regions, size)
        for (image_id, _, size), *each in zip(good, *described, strict=True)
        for suffix, regions in zip(("", FLIP), each, strict=False)
    ]
    return _Described(images, skipped, len(batch))


def _add(writer: StoreWriter, batch: _Described) -> None:
    for image_id, regions, size in batch.images:
        writer.add(image_id, regions.features, regions.boxes, size, regions.labels, regions.scores)
    for entry in batch.skipped:
        writer.skip(*entry)


def _finished(folder: Path, manifest: Manifest, unit: Unit, images: Mapping[str, Path]) -> FileContents | None:
    """The unit's shard, if it exists, is sound, and holds every image that can be read; else None.

    Raises:
        ValueError: an image file has changed since.
    """
    part = sound_shard(folder, manifest, unit)
    if part is None:
        return None
    bad = {entry.image_id for entry in part.skipped}
    if any(_readable(images[image_id]) for image_id in bad):
        return None
    if part.sources != _fingerprint(unit, images, bad):
        raise ValueError(
            f"{folder / unit.shard}: image files have changed since their features were made; delete this file to "
            f"extract its {len(unit.images)} images again, or give another folder for the features"
        )
    return part


def _readable(path: Path) -> bool:
    try:
        load_image(path)
    except (OSError, ValueError):
        return False
    return True


def _fingerprint(unit: Unit, images: Mapping[str, Path], left_out: Collection[str]) -> str:
    """A hash of the sizes of the unit's files: cheap, and enough to notice most replaced images."""
    paths = [images[image_id] for image_id in unit.images if image_id not in left_out]
    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
