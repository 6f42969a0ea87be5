"""A folder of shards that is being written, by an extractor or a conversion, and goes on after a kill."""

from __future__ import annotations

from pathlib import Path

from coattn.features.store.manifest import MANIFEST, Manifest
from coattn.features.store.provenance import require_same_extractor


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
    # Looked at before the manifest: what another process of the same command puts there comes after its manifest.
    holds_something = any(not path.name.startswith(f".{MANIFEST}") for path in folder.iterdir())
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


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files of a killed process that was writing `target`."""
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        leftover.unlink()
