"""Running an extractor over many images, into a folder of shards that survives kills and can be shared by processes."""

from __future__ import annotations

import hashlib
import json
import os
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
from torch import Tensor

from coattn._internal.files import atomic_path, remove_leftovers
from coattn._internal.progress import Advance, tell
from coattn._internal.progress import progress as show_progress
from coattn.features.extract.extractors.base import Extractor, Regions
from coattn.features.extract.extractors.build import WEIGHTS, build_extractor
from coattn.features.extract.images import find_images, load_image
from coattn.features.extract.pipeline import computing, in_background, loading
from coattn.features.extract.processes import num_cores
from coattn.features.store.layout import Part, Skipped, feature_dtype
from coattn.features.store.manifest import FLIP, Manifest, Unit, open_folder, plan_units
from coattn.features.store.reader import asset_path, read_shard
from coattn.features.store.writer import StoreWriter

__all__ = ["Extractor", "Regions", "Report", "build_extractor", "extract", "find_images", "load_image"]

_IMAGES, _CACHED_IMAGES = 32, 4  # at once
_UNIT_IMAGES = 256
_UNIT_BYTES = 128 * 2**20
_WAITING_BATCHES = 8  # described and not yet written, before the extractor has to wait


@dataclass(frozen=True)
class Report:
    """What `extract` did: images now in its shards, those of them that were there before, and those left out."""

    done: int
    found_done: int
    skipped: list[Skipped]


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

    The images are cut into units, each of which becomes one shard, complete or not there at all. Called again with the
    same arguments, only what is missing is made, and the files end up the same, byte for byte, as in one go. (With
    another batch size, number of threads or device they agree to rounding.) Images that cannot be read are left out and
    tried again by the next call. Several processes may share the work, without a word between them: each does every
    `world_size`-th unit.

    Reading, computing and writing go on at the same time. In memory are no more than the images and features of a few
    batches, and the features of two shards, one being filled and one being written. These two are what a kill loses.

    Args:
        images: image id to path.
        out: folder; made if it does not exist.
        extractor: what makes the regions.
        dtype: of the stored features: float16, float32 or int8.
        flips: store each image a second time, mirrored, under its id with `#flip` behind.
        batch_size: images per call of the extractor; None: 32, or 4 of a network on a CPU, which is up to twice as fast
            where its caches hold what it computes.
        num_workers: threads that read and shrink images while the extractor computes; None: one for each core.
        images_per_unit: default: 256, less where that would be more than 128 MB of features.
        rank: which of the processes this is.
        world_size: number of processes.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: `out` holds something else, or features made with other settings or of other images; unknown dtype.
    """
    folder = Path(out)
    if images_per_unit is None:
        row_bytes = extractor.dim * feature_dtype(dtype).itemsize * (2 if flips else 1)
        images_per_unit = max(1, min(_UNIT_IMAGES, _UNIT_BYTES // (row_bytes * extractor.num_regions)))
    units = plan_units(images, folder, images_per_unit=images_per_unit)
    manifest = Manifest(extractor.record, extractor.dim, dtype, flips, units)
    open_folder(folder, manifest)
    if rank == 0 and extractor.weights is not None and not asset_path(folder, WEIGHTS).exists():
        _save_weights(asset_path(folder, WEIGHTS), extractor.weights)

    units = units[rank::world_size]
    there = {unit.shard: part for unit in units if (part := _finished(folder, manifest, unit, images)) is not None}
    skipped = [entry for part in there.values() for entry in part.skipped]
    todo = [unit for unit in units if unit.shard not in there]
    total = sum(len(unit.images) for unit in units)
    missing = sum(len(unit.images) for unit in todo)
    name = folder.name if world_size == 1 else f"{folder.name}, process {rank} of {world_size}"
    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),  # told with the file's name
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
            advance=advance,
        )
    found = sum(len(part.image_ids) for part in there.values()) // (2 if flips else 1)
    return Report(done=total - len(skipped), found_done=found, skipped=skipped)


def images_at_once(extractor: Extractor) -> int:
    """Images per call of an extractor with which it is fast: few where the CPU's caches should hold them."""
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
    advance: Advance,
) -> list[Skipped]:
    """Extract units, one after another; return what could not be read."""
    skipped: list[Skipped] = []
    paths = [images[image_id] for unit in units for image_id in unit.images]
    load, describe = partial(_load, extractor), partial(_describe, extractor, flips=flips)
    with (
        loading(load, paths, num_workers=num_workers, ahead=2 * batch_size) as loaded,
        computing(describe, _batches(units, loaded, batch_size), parallel=extractor.parallel) as described,
        in_background(ahead=_WAITING_BATCHES) as write,
    ):
        written: Future[None] | None = None
        for unit in units:
            remove_leftovers(folder / unit.shard)
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
                    written.result()  # no more than two shards are in memory, this one and the one before it
                writer.sources = _fingerprint(unit, images, {entry.image_id for entry in skipped})
                written = write(unfinished.pop_all().close)
    return skipped


class _Loaded(NamedTuple):
    """An image as the extractor wants it, or the reason why there is none."""

    path: Path
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    reason: str = ""


def _load(extractor: Extractor, path: Path) -> _Loaded:
    try:
        image = load_image(path, tell=tell)
    except OSError as error:
        return _Loaded(path, None, reason=error.strerror or str(error))
    except ValueError as error:
        return _Loaded(path, None, reason=str(error).removeprefix(f"{path}: "))
    return _Loaded(path, extractor.prepare(image), image.size)


_Item = tuple[tuple[str, str], _Loaded]  # (image id, path in the manifest), what was loaded


def _batches(units: Sequence[Unit], loaded: Iterator[_Loaded], size: int) -> Iterator[list[_Item]]:
    """Batches of at most `size`, each of one unit: the same ones whoever shares the work."""
    for unit in units:
        # The images come first in zip: it must not take from `loaded` what belongs to the next unit.
        items = zip(unit.images.items(), loaded, strict=False)
        while batch := list(islice(items, size)):
            yield batch


class _Described(NamedTuple):
    """What became of a batch: id, regions, width and height of each image, and those that could not be read."""

    images: list[tuple[str, Regions, tuple[int, int]]]
    skipped: list[Skipped]
    number: int


def _describe(extractor: Extractor, batch: list[_Item], *, flips: bool) -> _Described:
    """Describe the images that could be read, each mirrored too if asked for."""
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


def _finished(folder: Path, manifest: Manifest, unit: Unit, images: Mapping[str, Path]) -> Part | None:
    """The unit's shard, if it is there, sound, and holds every image that can be read; else None.

    Raises:
        ValueError: an image file has changed since.
    """
    if not (folder / unit.shard).exists():
        return None
    try:
        part = read_shard(folder, manifest, unit)
    except ValueError:
        return None  # damaged: it is ours to make again
    bad = {entry.image_id for entry in part.skipped}
    if any(_readable(images[image_id]) for image_id in bad):
        return None
    if part.sources != _fingerprint(unit, images, bad):
        raise ValueError(
            f"{part.path}: image files have changed since their features were made; delete this file to extract its "
            f"{len(unit.images)} images again, or give another folder for the features"
        )
    return part


def _readable(path: Path) -> bool:
    try:
        load_image(path)
    except (OSError, ValueError):
        return False
    return True


def _fingerprint(unit: Unit, images: Mapping[str, Path], left_out: Collection[str]) -> str:
    """A hash of the sizes of the unit's files: cheap, and enough to notice that an image was replaced."""
    paths = [images[image_id] for image_id in unit.images if image_id not in left_out]
    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    remove_leftovers(path)
    with atomic_path(path) as file:
        save_file(dict(weights), file)
