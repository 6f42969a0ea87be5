"""Dividing images into splits, so that copies of a picture and all images of a group stay together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from coattn.datasets.image_files import hold_out
from coattn.datasets.records import Record


def divide(
    records: Sequence[Record], fractions: Mapping[str, float], *, seed: int, copies: Mapping[str, str]
) -> dict[str, list[Record]]:
    """Hold images out of the records of train, and of records without a split.

    Args:
        records: the records of a table.
        fractions: split to the share of the images (or of the groups of images) to hold out for it.
        seed: chooses the images.
        copies: image id to the id that stands for all byte-identical copies of that picture.

    Returns:
        Split name to records. Images that are copies of each other, or share a group (`Record.extra["group"]`), are in
        the same split, unless the table names their splits itself, or nearly all images are copies of one picture.

    Raises:
        ValueError: there are too few images for all splits.
    """
    own = [record for record in records if record.split in ("", "train")]
    unit_of = _units(own, copies)
    if len(set(unit_of.values())) <= sum(map(bool, fractions.values())):  # too few pictures differ: divide by name
        unit_of = _units(own, {})
    remaining = set(unit_of.values())
    total = len(remaining)
    split_of: dict[str, str] = {}
    for name, fraction in fractions.items():
        held_out = hold_out(remaining, max(1, round(fraction * total)) if fraction else 0, seed=seed)
        split_of |= dict.fromkeys(held_out, name)
        remaining -= held_out
    if split_of and not remaining:
        held = [name for name, fraction in fractions.items() if fraction]
        raise ValueError(
            f"{total} images (or groups of images) are too few: holding out {' and '.join(held)} takes at least "
            f"{len(held) + 1}. Add images, or name the split of each row in a column 'split'"
        )
    splits: dict[str, list[Record]] = {name: [] for name in ("train", "val", "test")}
    for record in records:
        chosen = split_of.get(unit_of[str(record.image_id)]) if record.split in ("", "train") else None
        name = chosen or record.split or "train"
        splits.setdefault(name, []).append(replace(record, split=name))
    return {name: kept for name, kept in splits.items() if kept}


def _units(records: Iterable[Record], copies: Mapping[str, str]) -> dict[str, str]:
    """Image id to the smallest image id of those that must stay together (union-find)."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    images = set()
    for record in records:
        image = str(record.image_id)
        images.add(image)
        together = [("image", copies.get(image, image))]
        if group := record.extra.get("group"):
            together.append(("group", str(group)))
        for node in together:
            parent[root(node)] = root(("image", image))
    smallest: dict[tuple[str, str], str] = {}
    for image in sorted(images):
        smallest.setdefault(root(("image", image)), image)
    return {image: smallest[root(("image", image))] for image in images}
