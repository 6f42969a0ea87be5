"""Running an extractor over many images, into a folder of shards that survives kills and can be shared by processes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from coattn.features.extractors.build import WEIGHTS, build_extractor
from coattn.features.folder import open_folder, remove_leftovers
from coattn.features.images import find_images, load_image
from coattn.features.layout import Part, Skipped, feature_dtype
from coattn.features.manifest import FLIP, Manifest, Unit, plan_units
from coattn.features.regions import Extractor, Regions
from coattn.features.store import asset_path, read_shard
from coattn.features.writer import StoreWriter
from coattn.files import atomic_path

__all__ = ["Extractor", "Regions", "Report", "build_extractor", "extract", "find_images", "load_image"]

_UNIT_IMAGES = 256
_UNIT_BYTES = 128 * 2**20


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
    batch_size: int = 32,
    num_workers: int = 2,
    images_per_unit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> Report:
    """Extract the regions of `images` (id to path) into the folder `out`, or finish what an earlier call began.

    The images are cut into units, each of which becomes one shard, complete or not there at all. Called again with the
    same arguments, only what is missing is made, and the files end up the same, byte for byte, as in one go. (With
    another batch size, number of threads or device they agree to rounding.) Images that cannot be read are left out and
    tried again by the next call. Several processes may share the work: each does every `world_size`-th unit.

    Args:
        images: image id to path.
        out: folder; made if it does not exist.
        extractor: what makes the regions.
        dtype: of the stored features: float16, float32 or int8.
        flips: store each image a second time, mirrored, under its id with `#flip` behind.
        batch_size: images per call of the extractor.
        num_workers: threads that read and shrink images while the extractor computes.
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
    if extractor.weights is not None and not asset_path(folder, WEIGHTS).exists():
        _save_weights(asset_path(folder, WEIGHTS), extractor.weights)

    units = units[rank::world_size]
    there = {unit.shard: part for unit in units if (part := _finished(folder, manifest, unit, images)) is not None}
    skipped = [entry for part in there.values() for entry in part.skipped]
    todo = [unit for unit in units if unit.shard not in there]
    total = sum(len(unit.images) for unit in units)
    found = total - sum(len(unit.images) for unit in todo)
    paths = [images[image_id] for unit in todo for image_id in unit.images]
    with (
        _loading(extractor, paths, num_workers=num_workers, ahead=2 * batch_size) as loaded,
        tqdm(total=total, initial=found, unit="image", desc=folder.name, disable=not progress) as bar,
    ):
        for unit in todo:
            with _shard_writer(folder / unit.shard, extractor, dtype) as writer:
                # The images come first in zip: it must not take from `loaded` what belongs to the next unit.
                for batch in _batches(zip(unit.images.items(), loaded, strict=False), batch_size):
                    skipped += _write_batch(writer, batch, extractor, flips=flips)
                    bar.update(len(batch))
                bad = {entry.image_id for entry in skipped}
                writer.sources = _fingerprint(images[image_id] for image_id in unit.images if image_id not in bad)
    return Report(done=total - len(skipped), found_done=found, skipped=skipped)


class _Loaded(NamedTuple):
    """An image as the extractor wants it, or the reason why there is none."""

    path: Path
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    reason: str = ""


def _load(extractor: Extractor, path: Path) -> _Loaded:
    try:
        image = load_image(path)
    except OSError as error:
        return _Loaded(path, None, reason=error.strerror or str(error))
    except ValueError as error:
        return _Loaded(path, None, reason=str(error).removeprefix(f"{path}: "))
    return _Loaded(path, extractor.prepare(image), image.size)


@contextmanager
def _loading(
    extractor: Extractor, paths: Sequence[Path], *, num_workers: int, ahead: int
) -> Iterator[Iterator[_Loaded]]:
    """Load images in order, at most `ahead` of the one that is asked for, in threads (Pillow releases the lock)."""

    def in_order() -> Iterator[_Loaded]:
        waiting: deque[Future[_Loaded]] = deque()
        for path in paths:
            waiting.append(pool.submit(_load, extractor, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(num_workers)
    try:
        yield in_order()
    finally:
        pool.shutdown(cancel_futures=True)


def _shard_writer(path: Path, extractor: Extractor, dtype: str) -> StoreWriter:
    remove_leftovers(path)
    return StoreWriter(path, dim=extractor.dim, dtype=dtype, record=extractor.record)


_Item = tuple[tuple[str, str], _Loaded]  # (image id, path in the manifest), what was loaded


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _write_batch(writer: StoreWriter, batch: list[_Item], extractor: Extractor, *, flips: bool) -> list[Skipped]:
    """Extract one batch and append it; return what could not be read."""
    skipped = []
    good = []
    for (image_id, stored_path), loaded in batch:
        if loaded.pixels is None:
            tqdm.write(f"skipped image {image_id!r} ({loaded.path}): {loaded.reason}", file=sys.stderr)
            skipped.append(Skipped(image_id, stored_path, loaded.reason))
        else:
            good.append((image_id, loaded.pixels, loaded.size))
    for entry in skipped:
        writer.skip(*entry)
    pixels = [pixels for _, pixels, _ in good]
    plain = extractor.describe(pixels)
    mirrored = extractor.describe([np.ascontiguousarray(image[:, ::-1]) for image in pixels]) if flips else []
    for i, (image_id, _, size) in enumerate(good):
        for name, found in [(image_id, plain[i]), *([(image_id + FLIP, mirrored[i])] if flips else [])]:
            writer.add(name, found.features, found.boxes, size, found.labels, found.scores)
    return skipped


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
    if part.sources != _fingerprint(images[image_id] for image_id in unit.images if image_id not in bad):
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


def _fingerprint(paths: Iterable[Path]) -> str:
    """A hash of the files' sizes: cheap, and enough to notice that an image was replaced."""
    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    remove_leftovers(path)
    with atomic_path(path) as partial:
        save_file(dict(weights), partial)
