"""The manifest of a folder of shards: the extractor, and the images of each shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coattn._internal.files import read_json, write_json
from coattn.features.store.layout import FEATURE_DTYPES, FORMAT, VERSION
from coattn.features.store.provenance import check_record, require_same_extractor

MANIFEST = "manifest.json"
FLIP = "#flip"
_UNIT_IMAGES, _UNIT_BYTES = 256, 128 * 2**20
SIGN = ".process-"  # files by which processes that write one folder know of each other


@dataclass(frozen=True)
class Unit:
    """A unit of work: the images of one shard. `images` maps image id to path, relative to the folder."""

    shard: str
    images: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """The plan of a folder, which is fixed before the first image is read.

    With `flips`, every image is stored twice: unchanged, and mirrored left to right under its id followed by `#flip`.
    """

    extractor: dict[str, Any]
    dim: int
    dtype: str
    flips: bool
    units: list[Unit]

    @property
    def images(self) -> dict[str, str]:
        """All images, id to path relative to the folder, in order."""
        return {image_id: path for unit in self.units for image_id, path in unit.images.items()}

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`, atomically."""
        write_json(folder / MANIFEST, {"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check `manifest.json`.

        Raises:
            ValueError: it is not one of ours, or lacks something; the message names the file.
            OSError: it cannot be read.
        """
        path = folder / MANIFEST
        value = read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"{path}: not the manifest of a feature store of coattn")
        if value.get("version") != VERSION:
            raise ValueError(f"{path}: feature store of version {value.get('version')}; this coattn reads {VERSION}")
        try:
            units = [Unit(str(unit["shard"]), dict(unit["images"])) for unit in value["units"]]
            manifest = cls(dict(value["extractor"]), int(value["dim"]), str(value["dtype"]), value["flips"], units)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: damaged manifest ({type(error).__name__}: {error})") from None
        check_record(manifest.extractor, str(path))
        strange = [unit.shard for unit in units if Path(unit.shard).name != unit.shard]
        if strange or manifest.dtype not in FEATURE_DTYPES:
            raise ValueError(f"{path}: damaged manifest (shard {strange}, dtype {manifest.dtype!r})")
        return manifest


def plan_units(images: Mapping[str, str], *, image_bytes: int, images_per_unit: int | None = None) -> list[Unit]:
    """Divide images, in their order, into units.

    Args:
        images: image id to the path, or another name of its source, that the manifest keeps.
        image_bytes: bytes of the features of one image.
        images_per_unit: images of a unit; by default 256, or fewer where their features would exceed 128 MB.
    """
    count = images_per_unit or max(1, min(_UNIT_IMAGES, _UNIT_BYTES // image_bytes))
    items = list(images.items())
    starts = range(0, len(items), count)
    return [Unit(f"shard-{i:05}.h5", dict(items[at : at + count])) for i, at in enumerate(starts)]


def open_folder(folder: Path, manifest: Manifest) -> None:
    """Write the plan into a new folder, or check that the folder has the same plan.

    Raises:
        ValueError: `folder` is a file, holds something else, or was begun with another plan.
    """
    if folder.suffix == ".h5" or folder.is_file():
        raise ValueError(
            f"{folder}: features are written into a folder; make one file of it with `coattn convert merge` afterwards"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Look before the manifest is read: another process of the same command writes its shards after the manifest.
    holds_something = any(not path.name.startswith((f".{MANIFEST}", SIGN)) for path in folder.iterdir())
    if (folder / MANIFEST).exists():
        _check_same_plan(folder, manifest, Manifest.read(folder))
    elif holds_something:
        raise ValueError(f"{folder}: is not empty and holds no features; give a new folder for the features")
    else:
        manifest.write(folder)


def _check_same_plan(folder: Path, ours: Manifest, theirs: Manifest) -> None:
    fix = "give another folder for the features, or delete this one"
    require_same_extractor(ours.extractor, theirs.extractor, wanted_by="this command", found_in=f"{folder} ({fix})")
    for name, then, now in (("dtype", theirs.dtype, ours.dtype), ("flips", theirs.flips, ours.flips)):
        if then != now:
            raise ValueError(f"{folder}: was begun with {name} {then}, now it is {now}; {fix}")
    if theirs.units != ours.units:
        old, new = theirs.images, ours.images
        first = next((image_id for image_id in (*new, *old) if new.get(image_id) != old.get(image_id)), None)
        where = (
            "they come in another order" if first is None else f"{first!r} was {old.get(first)}, is {new.get(first)}"
        )
        raise ValueError(f"{folder}: was begun with other images ({len(old)} then, {len(new)} now; {where}); {fix}")
