"""Regions made up by tests, as files of other projects' layouts, and what has to come out of them."""

from __future__ import annotations

import base64
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from coattn.features.convert.formats.tsv import OLDER
from coattn.features.store.reader import FeatureStore

DIM = 6
SIZE = (640, 480)
# What `coattn convert openvqa` and the like write into the models that they make.
EXPECTED = {"name": "bottom-up", "settings": {}, "weights": None, "versions": {}}


class Made:
    """Regions of one image, from which the tests write files in each layout."""

    def __init__(self, seed: int, count: int, dim: int = DIM) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(count, dim)).astype(np.float32)
        corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
        self.boxes = (corners * np.array([*SIZE, *SIZE])).astype(np.float32)
        self.labels = rng.integers(0, 1600, count)
        self.scores = rng.random(count, np.float32)
        self.attributes = rng.integers(0, 400, count)
        self.attribute_scores = rng.random(count, np.float32)


def made_images() -> dict[str, Made]:
    return {str(7 * number + 3): Made(number, count) for number, count in enumerate([3, 1, 5, 2])}


def text64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def columns(name: str, made: Made) -> dict[str, Any]:
    arrays = {"boxes": made.boxes, "features": made.features, "objects_id": made.labels, "objects_conf": made.scores}
    arrays |= {"attrs_id": made.attributes, "attrs_conf": made.attribute_scores}
    plain = {"num_boxes": len(made.features), "image_id": name, "img_id": name}
    plain |= {"image_w": SIZE[0], "img_w": SIZE[0], "image_h": SIZE[1], "img_h": SIZE[1]}
    return plain | {key: text64(array) for key, array in arrays.items()}


def write_tsv(
    path: Path, images: Sequence[tuple[str, Made]], order: Sequence[str] = OLDER, header: bool = False
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, order, delimiter="\t", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(columns(name, made) for name, made in images)
    return path


def write_npz(folder: Path, made: Mapping[str, Made], kind: str) -> Path:
    folder.mkdir()
    for name, one in made.items():
        size = {"image_w": SIZE[0], "image_h": SIZE[1]}
        if kind == "vqa":
            path = folder / f"COCO_train2014_{int(name):012d}.jpg.npz"
            np.savez(path, x=one.features.T, bbox=one.boxes, num_bbox=len(one.boxes), **size)
        elif kind == "gqa":
            np.savez(folder / f"{name}.npz", x=one.features, bbox=one.boxes, width=SIZE[0], height=SIZE[1])
        else:
            info = {"image_id": name, "objects_id": one.labels, "objects_conf": one.scores}
            info |= {"attrs_id": one.attributes, "attrs_conf": one.attribute_scores, "num_boxes": len(one.boxes)}
            np.savez_compressed(folder / name, x=one.features, bbox=one.boxes, info=info, **size)
    return folder


def flat(made: Mapping[str, Made], name: str) -> np.ndarray:
    return np.concatenate([getattr(one, name) for one in made.values()])


def write_dcn(path: Path, made: Mapping[str, Made]) -> None:
    ends = np.cumsum([len(one.boxes) for one in made.values()])
    with h5py.File(path, "w") as file:
        file["features"], file["boxes"] = flat(made, "features"), flat(made, "boxes")
        file["img_start_idx"], file["img_end_idx"] = ends - [len(one.boxes) for one in made.values()], ends - 1
        file["image_w"], file["image_h"] = np.full(len(made), SIZE[0]), np.full(len(made), SIZE[1])
    table = {int(name): row for row, name in enumerate(made)}
    torch.save(table, path.with_suffix(".pt"), _use_new_zipfile_serialization=False)


def mmf_info(one: Made) -> dict[str, Any]:
    probabilities = np.full((len(one.boxes), 1600), 0.0, np.float32)
    probabilities[np.arange(len(one.boxes)), one.labels] = one.scores
    info = {"bbox": one.boxes, "objects": one.labels, "cls_prob": probabilities, "num_boxes": len(one.boxes)}
    return info | {"image_width": SIZE[0], "image_height": SIZE[1]}


def check(store: FeatureStore, made: Mapping[str, Made], *, dtype: str = "float32", detections: bool = False) -> None:
    assert sorted(store.image_ids) == sorted(made)
    for name, one in made.items():
        rows = store.read(store.index(name))
        np.testing.assert_array_equal(rows.features, one.features.astype(dtype).astype(np.float32))
        np.testing.assert_allclose(rows.boxes, one.boxes / np.array([*SIZE, *SIZE], np.float32), atol=1e-7)
        assert tuple(rows.size) == SIZE
        if detections:
            np.testing.assert_array_equal(rows.labels, one.labels)
            np.testing.assert_array_equal(rows.scores, one.scores)
            np.testing.assert_array_equal(rows.attributes, one.attributes)
            np.testing.assert_array_equal(rows.attribute_scores, one.attribute_scores)
